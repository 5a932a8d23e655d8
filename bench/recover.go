package main

var recoveries []workload

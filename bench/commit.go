package main

var commits []workload

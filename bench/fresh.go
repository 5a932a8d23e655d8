package main

var freshes []workload

package main

var idles []workload

// Package laketest starts what tests need and Go's build does not bring: real
// Postgres and MinIO servers, the engines that read the lake (DuckDB, PyIceberg,
// Spark, Trino), promtool; and it compares what they read.
//
// Everything is fetched and built once, from the pins in testdata/tools, into a
// cache folder (CacheDir), behind file locks; `go run ./lake/laketest/fetch`
// does so ahead of the tests. A missing engine fails a test when CI is set, and
// skips it otherwise, saying what is missing. Under -short no engine starts.
//
// Servers belong to the test process and are shared by its tests; they die with
// it however it ends. Engines other than Spark and Trino are processes of their
// test. Spark and Trino take half a minute and a gigabyte each to start, so only
// the package lake/laketest/engines may use them.
//
// Every reader's rows come back as a Result, in one text form for each value, so
// that readers and Postgres itself are compared as multisets: see Rows, Diff.
package laketest

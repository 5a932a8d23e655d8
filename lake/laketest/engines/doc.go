// Package engines holds the tests that need Spark or Trino. Each takes half a
// minute and a gigabyte to start, so they start once, in the one process that
// tests this package.
package engines

// Package localpg runs a throwaway Postgres for the demo, tests and
// benchmarks: it finds installed binaries or fetches pinned ones, makes a data
// folder, and starts the server as a child that dies with this process, even
// when this process is killed with SIGKILL.
//
// It is no way to run a database that anybody cares about: connections are
// trusted, and fsync is off unless asked for.
package localpg

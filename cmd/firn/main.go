// Command firn mirrors a Postgres database into Iceberg tables and serves
// their catalog. Each command is a file of its own; what they share is app.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		// Some supervisors send one signal twice, to the process and to its
		// group; a user who doesn't want to wait takes longer than that.
		first := time.Now()
		s := <-signals
		for time.Since(first) < 300*time.Millisecond {
			s = <-signals
		}
		fmt.Fprintf(os.Stderr, "firn: stopped at once (%s); the next start goes on where the lake stands\n", s)
		os.Exit(exitFailure)
	}()
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	os.Exit(a.main(ctx, os.Args[1:]))
}

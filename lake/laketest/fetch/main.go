// Command fetch makes everything ready that the tests need (or the tools named
// as arguments), so that a test run is not what waits for it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"firn/lake/laketest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := laketest.Fetch(ctx, os.Stderr, os.Args[1:]...); err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
}

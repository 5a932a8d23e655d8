// Command fetch makes everything ready that the tests need (or the tools named
// as arguments), so that a test run is not what waits for it. It prints progress to
// standard error and the tools' folders to standard output.
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
	dirs, err := laketest.Fetch(ctx, os.Stderr, os.Args[1:]...)
	for _, dir := range dirs {
		fmt.Println(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fetch:", err)
		os.Exit(1)
	}
}

package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"firn/cmd/firn/internal/config"
	"firn/lake"
)

// failpoint reads FIRN_FAILPOINT, name or name:n: the process kills itself, as
// kill -9 does, when the lake comes to that point (one of lake.FailPoints) for
// the n-th time. It is for the test that kills firn everywhere, and in no help
// text. An empty spec is no failpoint.
func failpoint(spec string) (func(point string), error) {
	if spec == "" {
		return nil, nil
	}
	name, times, counted := strings.Cut(spec, ":")
	n := int64(1)
	if counted {
		var err error
		if n, err = strconv.ParseInt(times, 10, 64); err != nil || n < 1 {
			return nil, &config.Error{Text: "FIRN_FAILPOINT: want name:n with n from 1"}
		}
	}
	if !slices.Contains(lake.FailPoints, name) {
		return nil, &config.Error{Text: "FIRN_FAILPOINT: want one of " + strings.Join(lake.FailPoints, ", ")}
	}
	var seen atomic.Int64
	return func(point string) {
		if point == name && seen.Add(1) == n {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {} // the signal is on its way
		}
	}, nil
}

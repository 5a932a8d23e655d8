package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"runtime/trace"

	"github.com/spf13/cobra"
)

// profiles are files that a command writes about itself, for those who make it
// faster. Their flags are hidden, and have no environment variable.
type profiles struct{ cpu, trace string }

func profileFlags(cmd *cobra.Command) *profiles {
	p := &profiles{}
	for name, f := range map[string]struct {
		path  *string
		usage string
	}{
		"cpuprofile": {&p.cpu, "write a CPU profile to this file, for go tool pprof"},
		"trace":      {&p.trace, "write an execution trace to this file, for go tool trace"},
	} {
		cmd.Flags().StringVar(f.path, name, "", f.usage)
		_ = cmd.Flags().MarkHidden(name) // it exists: defined above
	}
	return p
}

// start begins to write them. Stop ends it, and must be called where start
// returned no error.
func (p *profiles) start() (stop func() error, err error) {
	var ends []func() error
	stop = func() error {
		var errs []error
		for _, end := range ends {
			errs = append(errs, end())
		}
		return errors.Join(errs...)
	}
	begin := func(path, what string, start func(*os.File) error, end func()) error {
		if path == "" {
			return nil
		}
		f, err := os.Create(path)
		if err != nil {
			return fmt.Errorf("write %s: %w", what, err)
		}
		if err := start(f); err != nil {
			return errors.Join(fmt.Errorf("write %s: %w", what, err), f.Close())
		}
		ends = append(ends, func() error { end(); return f.Close() })
		return nil
	}
	err = begin(p.cpu, "CPU profile", func(f *os.File) error { return pprof.StartCPUProfile(f) }, pprof.StopCPUProfile)
	if err == nil {
		err = begin(p.trace, "execution trace", func(f *os.File) error { return trace.Start(f) }, trace.Stop)
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

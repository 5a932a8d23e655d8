package catalog

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the time as a Log sees it; tests put their own in.
type Clock struct {
	// Boot is a clock that never runs back and goes on while the machine
	// sleeps, which Go's own monotonic clock does not.
	Boot func() time.Duration
	// Now is the wall clock.
	Now func() time.Time
	// Sleep returns after d, or ctx's error before.
	Sleep func(ctx context.Context, d time.Duration) error
}

// SystemClock reads CLOCK_BOOTTIME and the wall clock.
func SystemClock() Clock {
	return Clock{Boot: bootTime, Now: time.Now, Sleep: sleep}
}

func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Every Linux since 2.6.39 has it, and the check of commits leans on it.
		panic(fmt.Sprintf("read CLOCK_BOOTTIME: %v", err))
	}
	return time.Duration(ts.Nano())
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

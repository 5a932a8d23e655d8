package lake

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Pacer holds rewrites back, all that share it together, to a share of one
// processor, by letting them pause after each piece of work. Work is measured by
// the clock, not by the processor's time: where processors are short it takes
// longer, and the pause after it, too, so that rewrites give way before anybody
// tells them to.
//
// Rejected: threads of a low priority, which the kernel would let run only where
// nobody else wants to. One that waits for its turn holds on to the runtime's
// leave to run Go code, and the collector waits for it: what is to have priority
// stands still with it.
type Pacer struct {
	share          atomic.Int32 // in percent; 0: nothing was said, and nothing is held back
	worked, paused atomic.Int64 // nanoseconds

	mu   sync.Mutex
	free time.Time // when the work done so far is paid for
}

// pauseMax bounds one pause, so that a stall of the store isn't taken for work
// for long, and a new share soon holds.
const pauseMax = 2 * time.Second

// Share sets the share of one processor in percent, from 1 to 100.
func (p *Pacer) Share(percent int) { p.share.Store(int32(percent)) }

// Paced returns how long the rewrites have worked, and how long they have paused
// for others, since the process began.
func (p *Pacer) Paced() (worked, paused time.Duration) {
	return time.Duration(p.worked.Load()), time.Duration(p.paused.Load())
}

// Pause is called after a piece of work that took so long; nil paces nothing.
func (p *Pacer) Pause(ctx context.Context, work time.Duration) error {
	if p == nil {
		return ctx.Err()
	}
	p.worked.Add(int64(work))
	share := time.Duration(p.share.Load())
	if share == 0 {
		return ctx.Err()
	}
	p.mu.Lock()
	now := time.Now()
	if began := now.Add(-work); p.free.Before(began) {
		p.free = began
	}
	p.free = p.free.Add(100 * work / share)
	if last := now.Add(pauseMax); p.free.After(last) {
		p.free = last
	}
	pause := p.free.Sub(now)
	p.mu.Unlock()
	if pause <= 0 {
		return ctx.Err()
	}
	defer func() { p.paused.Add(int64(time.Since(now))) }()
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

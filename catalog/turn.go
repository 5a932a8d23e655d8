package catalog

import (
	"context"
	"slices"
	"sync"
)

// turn is a lock whose urgent waiters go before all others, each kind in its
// order of coming.
type turn struct {
	mu     sync.Mutex
	held   bool
	urgent []chan struct{}
	others []chan struct{}
}

func (t *turn) take(ctx context.Context, urgent bool) error {
	t.mu.Lock()
	if !t.held {
		t.held = true
		t.mu.Unlock()
		return nil
	}
	queue := &t.others
	if urgent {
		queue = &t.urgent
	}
	ready := make(chan struct{})
	*queue = append(*queue, ready)
	t.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	at := slices.Index(*queue, ready)
	if at >= 0 {
		*queue = slices.Delete(*queue, at, at+1)
	}
	t.mu.Unlock()
	if at < 0 { // the turn came together with the end
		t.give()
	}
	return ctx.Err()
}

func (t *turn) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, queue := range []*[]chan struct{}{&t.urgent, &t.others} {
		if len(*queue) > 0 {
			next := (*queue)[0]
			*queue = (*queue)[1:]
			close(next)
			return
		}
	}
	t.held = false
}

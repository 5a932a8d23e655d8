package laketest

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"firn/lake/object"
)

// Op names a method of object.Store.
type Op string

// The operations that a FaultStore records and can break.
const (
	OpPut         Op = "Put"
	OpPutIfAbsent Op = "PutIfAbsent"
	OpGet         Op = "Get"
	OpGetRange    Op = "GetRange"
	OpOpenReader  Op = "OpenReader"
	OpHead        Op = "Head"
	OpList        Op = "List"
	OpKeys        Op = "Keys"
	OpDelete      Op = "Delete"
	OpNow         Op = "Now"
)

// Errors that faults give; errors.Is finds them.
var (
	ErrSlowDown = errors.New("503 Slow Down (injected)")
	ErrLost     = errors.New("connection reset (injected)")
	ErrCrashed  = errors.New("the process is dead (injected)")
)

// Call is one call as it came to a FaultStore.
type Call struct {
	Op  Op
	Key string // the first one, or the listing's prefix
}

// Fault says which calls go wrong, and how.
type Fault struct {
	Op    Op     // "": any
	Key   string // part of the key or prefix; "": any
	Skip  int    // matching calls that go well first
	Times int    // calls that then go wrong; 0: all

	Delay  time.Duration // after Hook, before all else
	Hang   bool          // until the call's context ends: a timeout
	Before error         // instead of the operation
	After  error         // the operation happens and its answer is lost
	// Hook runs as soon as a call is struck; its error is given like Before.
	Hook func(ctx context.Context, c Call) error
}

// FaultStore passes calls on to a store, records them, and lets chosen ones
// fail. Faults are asked in the order they were injected, and the first that
// matches acts.
type FaultStore struct {
	store object.Store

	mu     sync.Mutex
	faults []*Fault
	calls  []Call
	dead   bool
}

var _ object.Store = (*FaultStore)(nil)

// NewFaultStore wraps s. Without faults it behaves as s does.
func NewFaultStore(s object.Store) *FaultStore { return &FaultStore{store: s} }

// Inject adds a fault.
func (f *FaultStore) Inject(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault)
}

// Crash makes every call from the n-th on fail (1 is the next), as if the
// process had died before it: before the operation, or after it had its
// effect.
func (f *FaultStore) Crash(n int, after bool) {
	fault := Fault{Skip: n - 1, Times: 1, Before: ErrCrashed}
	if after {
		fault.Before, fault.After = nil, ErrCrashed
	}
	f.Inject(fault)
}

// Clear removes all faults and forgets the calls.
func (f *FaultStore) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.calls, f.dead = nil, nil, false
}

// Calls returns what was called so far, faulty calls included.
func (f *FaultStore) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.calls...)
}

// next records a call and returns the fault that strikes it, or nil.
func (f *FaultStore) next(c Call) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, c)
	if f.dead {
		return &Fault{Before: ErrCrashed}
	}
	for i, x := range f.faults {
		if x.Op != "" && x.Op != c.Op || !strings.Contains(c.Key, x.Key) {
			continue
		}
		if x.Skip > 0 {
			x.Skip--
			continue
		}
		struck := *x
		if x.Times > 0 {
			if x.Times--; x.Times == 0 {
				f.faults = append(f.faults[:i:i], f.faults[i+1:]...)
			}
		}
		f.dead = errors.Is(struck.Before, ErrCrashed) || errors.Is(struck.After, ErrCrashed)
		return &struck
	}
	return nil
}

func (f *FaultStore) call(ctx context.Context, op Op, key string, do func() error) error {
	c := Call{op, key}
	x := f.next(c)
	if x == nil {
		return do()
	}
	if x.Hook != nil {
		if err := x.Hook(ctx, c); err != nil {
			return err
		}
	}
	if x.Delay > 0 {
		select {
		case <-time.After(x.Delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if x.Hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if x.Before != nil {
		return x.Before
	}
	if err := do(); err != nil || x.After == nil {
		return err
	}
	return x.After
}

// Put implements object.Store.
func (f *FaultStore) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	return f.call(ctx, OpPut, key, func() error { return f.store.Put(ctx, key, body, size) })
}

// PutIfAbsent implements object.Store.
func (f *FaultStore) PutIfAbsent(ctx context.Context, key string, body []byte) error {
	return f.call(ctx, OpPutIfAbsent, key, func() error { return f.store.PutIfAbsent(ctx, key, body) })
}

// Get implements object.Store.
func (f *FaultStore) Get(ctx context.Context, key string) (data []byte, err error) {
	err = f.call(ctx, OpGet, key, func() error { data, err = f.store.Get(ctx, key); return err })
	return kept(data, err)
}

// GetRange implements object.Store.
func (f *FaultStore) GetRange(ctx context.Context, key string, off, n int64) (data []byte, err error) {
	err = f.call(ctx, OpGetRange, key, func() error { data, err = f.store.GetRange(ctx, key, off, n); return err })
	return kept(data, err)
}

// OpenReader implements object.Store. The reader's ReadAt is recorded and
// struck as OpGetRange.
func (f *FaultStore) OpenReader(ctx context.Context, key string) (object.Reader, error) {
	var r object.Reader
	err := f.call(ctx, OpOpenReader, key, func() (err error) { r, err = f.store.OpenReader(ctx, key); return err })
	if err != nil {
		if r != nil {
			return nil, errors.Join(err, r.Close())
		}
		return nil, err
	}
	return &faultReader{Reader: r, f: f, ctx: ctx, key: key}, nil
}

type faultReader struct {
	object.Reader
	f   *FaultStore
	ctx context.Context
	key string
}

func (r *faultReader) ReadAt(p []byte, off int64) (n int, err error) {
	err = r.f.call(r.ctx, OpGetRange, r.key, func() error { n, err = r.Reader.ReadAt(p, off); return err })
	return n, err
}

// Head implements object.Store.
func (f *FaultStore) Head(ctx context.Context, key string) (info object.Info, err error) {
	err = f.call(ctx, OpHead, key, func() error { info, err = f.store.Head(ctx, key); return err })
	return kept(info, err)
}

// List implements object.Store.
func (f *FaultStore) List(ctx context.Context, prefix, startAfter string, limit int) (out []object.Info, err error) {
	err = f.call(ctx, OpList, prefix, func() error { out, err = f.store.List(ctx, prefix, startAfter, limit); return err })
	return kept(out, err)
}

// Keys implements object.Store.
func (f *FaultStore) Keys(ctx context.Context, prefix, startAfter string, limit int) (out []string, err error) {
	err = f.call(ctx, OpKeys, prefix, func() error { out, err = f.store.Keys(ctx, prefix, startAfter, limit); return err })
	return kept(out, err)
}

// Delete implements object.Store.
func (f *FaultStore) Delete(ctx context.Context, keys ...string) error {
	first := ""
	if len(keys) > 0 {
		first = keys[0]
	}
	return f.call(ctx, OpDelete, first, func() error { return f.store.Delete(ctx, keys...) })
}

// URI implements object.Store.
func (f *FaultStore) URI(key string) string { return f.store.URI(key) }

// Key implements object.Store.
func (f *FaultStore) Key(uri string) (string, bool) { return f.store.Key(uri) }

// Now implements object.Store.
func (f *FaultStore) Now(ctx context.Context) (now time.Time, err error) {
	err = f.call(ctx, OpNow, "", func() error { now, err = f.store.Now(ctx); return err })
	return kept(now, err)
}

// kept drops a value whose answer was lost.
func kept[T any](v T, err error) (T, error) {
	if err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}

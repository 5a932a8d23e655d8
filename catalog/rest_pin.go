package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A warehouse's name may carry a moment: shop@16/B374D848. /v1/config resolves
// it once, to an entry of the log, and answers with a prefix that names this
// very entry; all requests under that prefix are answered from its state, so
// every table a client loads, now or tomorrow, is of one epoch. Nothing can be
// changed through it.

// pinMark begins the prefix of a pinned warehouse, entry-<number>-<commit id>.
// No operation's path begins so, and no character of it needs an escape. The
// commit id tells whether the entry is still the one that was pinned.
const pinMark = "entry-"

func pinPrefix(st *State) string {
	return pinMark + strconv.FormatUint(st.Number, 10) + "-" + st.CommitID
}

func parsePin(prefix string) (number uint64, commitID string, ok bool) {
	digits, commitID, _ := strings.Cut(strings.TrimPrefix(prefix, pinMark), "-")
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, commitID, err == nil && commitID != ""
}

// resolve finds the state that a warehouse's name with a moment in it asks for.
func (s *server) resolve(ctx context.Context, name string) (*State, error) {
	noSuch := func(format string, a ...any) error {
		return &restError{Status: http.StatusNotFound, Type: "NoSuchWarehouseException", Message: fmt.Sprintf(format, a...)}
	}
	at := strings.LastIndexByte(name, '@')
	if at < 0 || !s.warehouseKnown(name[:at]) {
		return nil, noSuch("no warehouse %q here; this is %q, and %q as of a moment", name, s.o.Warehouse, s.o.Warehouse+"@MOMENT")
	}
	// No moment has a space, but a time's offset has a plus, which a client
	// that forgets to escape it turns into one.
	m, err := ParseMoment(strings.ReplaceAll(name[at+1:], " ", "+"))
	if err != nil {
		return nil, badRequest("warehouse %q: %v", name, err)
	}
	// A tag may have been made, or moved, by another process a moment ago.
	if _, err := s.refresh(ctx); err != nil {
		return nil, err
	}
	st, err := s.log.AsOf(ctx, m)
	if err == nil && m == (Moment{}) {
		st, err = s.latest(ctx, st)
	}
	switch {
	case errors.Is(err, ErrNotKept) && m.Tag != "":
		return nil, noSuch("warehouse %q: %v (what follows the @ is an LSN such as 16/B374D848, a time such as 2026-11-23T02:00:00Z, a tag, or latest)", name, err)
	case errors.Is(err, ErrNotKept), errors.Is(err, ErrNotYet):
		return nil, noSuch("warehouse %q: %v", name, err)
	case err != nil:
		return nil, unavailable("read the catalog's log", err)
	case st.CommitID == "":
		return nil, noSuch("warehouse %q: there is no epoch yet", name)
	}
	return st, nil
}

// latest is the state that the present is pinned to: the entry of the newest epoch
// if it shows the same as the head, for that one is kept by the rule, and the head
// may be an entry that nothing keeps.
func (s *server) latest(ctx context.Context, head *State) (*State, error) {
	epochs := head.Epochs()
	if len(epochs) == 0 || epochs[len(epochs)-1].Number == head.Number {
		return head, nil
	}
	st, err := s.log.keptState(ctx, epochs[len(epochs)-1])
	if err != nil || !st.shows(head) {
		return head, err
	}
	return st, nil
}

// pinOverrides are the client settings that pin a warehouse, and say to what.
func pinOverrides(st *State) map[string]string {
	out := map[string]string{"prefix": pinPrefix(st), "firn.epoch": strconv.FormatUint(st.Epoch, 10), "firn.lsn": st.LSN.String()}
	if !st.CommitTime.IsZero() {
		out["firn.commit-time"] = st.CommitTime.UTC().Format(time.RFC3339Nano)
	}
	return out
}

// pin gives a call under a prefix the state that it is answered from, or
// refuses it: what changes something, and what is outside any warehouse.
func (s *server) pin(ctx context.Context, c *call, rt *route) error {
	number, commitID, ok := parsePin(c.prefix)
	if !ok || rt.spec == "" {
		return noRoute(c.r)
	}
	st := s.pins.get(number, commitID)
	if st == nil {
		var err error
		st, err = s.log.Entry(ctx, number)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && st.CommitID != commitID:
			return s.unpinned(nil)
		case err != nil:
			return unavailable("read the pinned epoch", err)
		}
		s.pins.put(st)
	}
	if !rt.reads() {
		return forbidden("this warehouse is pinned to epoch %d at %s and can only be read; to change something, attach it as %q", st.Epoch, st.LSN, s.o.Warehouse)
	}
	c.pinned = st
	return nil
}

// unpinned is the answer when the pinned epoch has been thinned out since. A
// 404 would make some clients say that the table does not exist.
func (s *server) unpinned(cause error) error {
	return &restError{Status: http.StatusGone, Type: "NoSuchWarehouseException", cause: cause,
		Message: fmt.Sprintf("the lake no longer keeps the epoch that this warehouse was pinned to; attach %q again, as of a kept moment (a tag is kept until it is deleted)", s.o.Warehouse)}
}

// reads reports whether the operation leaves the catalog as it is.
func (rt *route) reads() bool {
	return rt.method == http.MethodGet || rt.method == http.MethodHead || strings.HasSuffix(rt.shape, "/metrics")
}

// pinsMax bounds the pinned states in memory; with a thousand tables one takes
// up to a megabyte, and reading it again two GETs.
const pinsMax = 8

// pinCache keeps the pinned states used last.
type pinCache struct {
	mu     sync.Mutex
	states []*State // the one used last at the end
}

// get returns nil for a state that is not there.
func (p *pinCache) get(number uint64, commitID string) *State {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.states, func(st *State) bool { return st.Number == number && st.CommitID == commitID })
	if i < 0 {
		return nil
	}
	st := p.states[i]
	p.states = append(slices.Delete(p.states, i, i+1), st)
	return st
}

func (p *pinCache) put(st *State) {
	if p.get(st.Number, st.CommitID) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.states = append(p.states, st)
	if len(p.states) > pinsMax {
		p.states = slices.Delete(p.states, 0, 1)
	}
}

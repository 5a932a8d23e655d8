package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"golang.org/x/sync/errgroup"

	"firn/catalog"
	"firn/wal"
)

// staleTable is one that an epoch was published without: it shows Postgres as of
// an LSN of its own.
type staleTable struct {
	Name   string  `json:"name"`
	State  string  `json:"state"`
	Reason string  `json:"reason,omitempty"`
	LSN    wal.LSN `json:"lsn"`
}

func (t staleTable) String() string {
	why := t.State
	if t.Reason != "" {
		why += ": " + t.Reason
	}
	return fmt.Sprintf("%s at %s (%s)", t.Name, t.LSN, why)
}

// staleTables lists those of an entry, or of names, if there are any.
func staleTables(s *catalog.State, names ...string) (out []staleTable) {
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	for id, t := range s.Tables() {
		if name := id.String(); t.Stale() && (len(names) == 0 || wanted[name]) {
			out = append(out, staleTable{name, t.Mirror.State, t.Mirror.Reason, t.Mirror.LSN})
		}
	}
	return out
}

// noteStale says so where people read.
func noteStale(out io.Writer, stale []staleTable) {
	if len(stale) == 0 {
		return
	}
	var list []string
	for _, t := range stale {
		list = append(list, t.String())
	}
	fmt.Fprintf(out, "note: not up to date in that epoch: %s\n", strings.Join(list, ", "))
}

// entriesAtOnce is how many are read at a time.
const entriesAtOnce = 8

// addStale reads each epoch's entry. One that is thinned out meanwhile has none.
func (w *warehouse) addStale(ctx context.Context, epochs []keptEpoch) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(entriesAtOnce)
	for i := range epochs {
		g.Go(func() error {
			s, err := w.log.Entry(ctx, epochs[i].Number)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return fmt.Errorf("read epoch %d: %w", epochs[i].Epoch, err)
			}
			epochs[i].Stale = staleTables(s)
			return nil
		})
	}
	return g.Wait()
}

package demo

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// Changes counts what the writer did to a table.
type Changes struct {
	Inserts int64 `json:"inserts"`
	Updates int64 `json:"updates"`
	Deletes int64 `json:"deletes"`
}

// Writer changes the shop all the time.
type Writer struct {
	url   string
	pause time.Duration

	mu     sync.Mutex
	counts map[string]Changes
}

// NewWriter writes into the shop at url, with a pause between transactions.
func NewWriter(url string, pause time.Duration) *Writer {
	return &Writer{url: url, pause: pause, counts: map[string]Changes{}}
}

// Counts returns what was committed to each table since the last Reset.
func (w *Writer) Counts() map[string]Changes {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[string]Changes, len(w.counts))
	for k, v := range w.counts {
		out[k] = v
	}
	return out
}

// Reset begins to count anew.
func (w *Writer) Reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.counts)
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	err := w.run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (w *Writer) run(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, w.url)
	if err != nil {
		return fmt.Errorf("connect to the shop: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	total := 0
	for _, a := range actions {
		total += a.weight
	}
	for i := 0; ; i++ {
		// Every kind now and then, so that a short demo sees all of them.
		a := &actions[i/4%len(actions)]
		if i%4 > 0 {
			n := rand.IntN(total)
			for j := range actions {
				if n -= actions[j].weight; n < 0 {
					a = &actions[j]
					break
				}
			}
		}
		if err := w.do(ctx, conn, a); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.pause):
		}
	}
}

// do runs one action in a transaction and counts what it did.
func (w *Writer) do(ctx context.Context, conn *pgx.Conn, a *action) error {
	did := make([]Changes, len(a.steps))
	at := rand.Float64()
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for i, s := range a.steps {
			var args []any
			if strings.Contains(s.sql, "$1") {
				args = append(args, at)
			}
			tag, err := tx.Exec(ctx, s.sql, args...)
			if err != nil {
				return fmt.Errorf("change %s: %w", s.table, err)
			}
			switch {
			case tag.Insert():
				did[i].Inserts = tag.RowsAffected()
			case tag.Update():
				did[i].Updates = tag.RowsAffected()
			case tag.Delete():
				did[i].Deletes = tag.RowsAffected()
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range a.steps {
		c := w.counts[s.table]
		c.Inserts += did[i].Inserts
		c.Updates += did[i].Updates
		c.Deletes += did[i].Deletes
		w.counts[s.table] = c
	}
	return nil
}

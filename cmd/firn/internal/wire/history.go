package wire

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"

	"firn/catalog"
	"firn/lake/snapshot"
)

// history is what the log keeps, as the tables' metadata shows it.
//
// The epochs are those of the head, not those that its successor will keep: what
// the next entry drops is listed until the entry after it. So a tag that somebody
// makes while an epoch is on its way names an epoch whose snapshots the tables
// still list, for only epochs thin, and no tag can name one that is thinned
// already.
type history struct {
	log    *catalog.Log
	logger *slog.Logger

	mu   sync.Mutex
	of   *catalog.State
	last *snapshot.History

	reading sync.Mutex                  // of what follows, and while the store is asked
	tagged  map[uint64]map[string]int64 // by entry: snapshots by table
}

// taggedMax bounds the tagged epochs in memory. They are asked for by one table
// after the other, in the order of their names.
const taggedMax = 16

func newHistory(log *catalog.Log, logger *slog.Logger) *history {
	return &history{log: log, logger: logger, tagged: map[uint64]map[string]int64{}}
}

// now is the history as of the head.
func (h *history) now() *snapshot.History {
	head := h.log.Head()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == head {
		return h.last
	}
	x := &snapshot.History{Tags: map[string]uint64{}}
	for _, k := range head.Epochs() {
		x.Epochs = append(x.Epochs, k.Epoch)
	}
	tags := map[string]catalog.Tag{}
	for name, t := range head.Tags() {
		x.Tags[name] = t.Epoch
		tags[name] = t
	}
	x.Tagged = func(ctx context.Context, tag, tableUUID string) (int64, error) {
		return h.snapshot(ctx, tags[tag], tableUUID)
	}
	h.of, h.last = head, x
	return x
}

// snapshot is the one that a tag's entry names for a table.
func (h *history) snapshot(ctx context.Context, t catalog.Tag, tableUUID string) (int64, error) {
	h.reading.Lock()
	defer h.reading.Unlock()
	tables := h.tagged[t.Number]
	if tables == nil {
		s, err := h.log.Entry(ctx, t.Number)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, catalog.ErrCorrupt):
			// That must not stop the stream.
			h.logger.Error("a tagged epoch can't be read; tables get no ref for it", "epoch", t.Epoch, "err", err)
		case err != nil:
			return 0, err
		}
		tables = map[string]int64{}
		if err == nil {
			for _, x := range s.Tables() {
				tables[x.UUID] = x.SnapshotID
			}
		}
		if len(h.tagged) >= taggedMax {
			clear(h.tagged)
		}
		h.tagged[t.Number] = tables
	}
	return tables[tableUUID], nil
}

package lake

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"path/filepath"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"golang.org/x/sync/errgroup"

	"firn/lake/index"
)

// newTable makes the owner's picture of a table whose files are in store.
func (s *session) newTable(id Ident, l *Layout, store TableStore) (*Table, error) {
	t := &Table{
		Ident: id, store: store, room: s.room,
		spawn:   func(fn func(context.Context) error) { s.group.Go(func() error { return fn(s.ctx) }) },
		files:   map[uint32]*dataFile{},
		moved:   map[uint32]*moved{},
		batches: map[uint32]*batch{},
	}
	if err := t.use(s.ctx, l); err != nil {
		return nil, err
	}
	if t.key != nil {
		h := fnv.New32a()
		h.Write([]byte(t.key.layout(l)))
		dir := filepath.Join(s.o.StateDir, "index", fmt.Sprintf("%d-%08x", l.OID, h.Sum32()))
		var err error
		if t.index, err = index.Open(dir, t.key.options()); err != nil {
			t.release()
			return nil, fmt.Errorf("open index of %s: %w", id, err)
		}
	}
	return t, nil
}

// openTables opens every table that the head says is followed, and brings its
// index up to the head. One with much to read joins later; one whose files can't
// be read, for what somebody else committed, or whose changes the stream lacks,
// is loaded anew.
func (s *session) openTables(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, m := range s.sorted() {
		if m.metadata == "" || m.resync || m.state != Streaming && m.state != Behind {
			continue
		}
		g.Go(func() error {
			err := s.openTable(gctx, m)
			if errors.Is(err, ErrUnreadable) || errors.Is(err, errMissed) {
				m.unfit, err = err, nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, m := range s.sorted() {
		if m.unfit != nil {
			s.giveUp(m, m.unfit.Error()) // the loads begin with the session's run
		}
	}
	for _, m := range s.sorted() {
		if m.table == nil {
			continue
		}
		if l := s.repartition(m.ident, m.table.layout); l != m.table.layout {
			if err := m.table.evolve(ctx, l); err != nil {
				return err
			}
			m.table.epoch.kind = "schema"
			s.dirtyAt = time.Now()
		}
		if !m.late && m.state == Streaming {
			continue
		}
		s.startSpool(m)
		r := loadResult{member: m, table: m.table, floor: m.position, caughtUp: true}
		m.table, m.layout = nil, m.table.layout
		s.following++
		if !m.late { // but not yet where the others are
			if err := s.loadDone(r); err != nil {
				return err
			}
			continue
		}
		m.state, m.reason = Behind, "its row index follows the files that others wrote"
		s.states[m.ident] = TableState{OID: m.oid, LSN: m.position, State: Behind, Reason: m.reason}
		s.group.Go(func() error {
			if err := r.table.catchUp(s.ctx, s.head.Epoch); err != nil {
				r.table.close(s.log)
				err = fmt.Errorf("bring the index of %s up to the lake: %w", r.table.Ident, err)
				if !errors.Is(err, ErrUnreadable) {
					return err
				}
				r.table, r.err = nil, err
			}
			s.sendLoad(s.ctx, r)
			return nil
		})
	}
	return nil
}

func (s *session) openTable(ctx context.Context, m *member) error {
	store, err := s.o.Tables.Open(ctx, m.ident, m.metadata)
	if err != nil {
		return fmt.Errorf("open %s: %w", m.ident, err)
	}
	l, err := decodeLayout(store.Properties()[layoutProperty])
	if err != nil {
		return fmt.Errorf("open %s: %w", m.ident, err)
	}
	if s.listed.missed(l) {
		return errMissed
	}
	t, err := s.newTable(m.ident, l, store)
	if err != nil {
		return err
	}
	if d := s.distrust[m.ident]; d != nil && !d.rebuilt && t.index != nil {
		d.rebuilt = true
		if err := t.index.Reset(); err != nil {
			t.close(s.log)
			return fmt.Errorf("reset index of %s: %w", m.ident, err)
		}
	}
	todo, err := t.attach(s.o.Now())
	if err != nil {
		t.close(s.log)
		return fmt.Errorf("open index of %s: %w", m.ident, err)
	}
	m.table, m.store = t, store
	if todo > s.o.CatchUpRows {
		m.late = true
		return nil
	}
	if err := t.catchUp(ctx, s.head.Epoch); err != nil {
		return fmt.Errorf("bring the index of %s up to the lake: %w", m.ident, err)
	}
	return nil
}

// attach numbers the live files, and says how many rows of files the index
// does not know have to be read.
func (t *Table) attach(now time.Time) (rowsToRead int64, err error) {
	known := map[string]uint32{}
	if t.index != nil {
		if t.index.State().Phase == index.Untrusted {
			if err := t.index.Reset(); err != nil {
				return 0, err
			}
		}
		for _, f := range t.index.Files() {
			known[f.Path] = f.No
		}
	}
	t.unread = map[uint32]bool{}
	for _, f := range t.store.Files() {
		d := &dataFile{no: known[f.Path], path: f.Path, rows: uint32(f.Rows), worn: now}
		if f.Dead != nil {
			d.dead = f.Dead.Clone()
		}
		if d.no == 0 {
			d.no = t.nextFile()
			t.unread[d.no] = true
			rowsToRead += f.Rows
		}
		t.files[d.no] = d
		t.live += f.Rows
		if d.dead != nil {
			t.live -= int64(d.dead.GetCardinality())
		}
	}
	if t.index == nil {
		rowsToRead = 0
	}
	return rowsToRead, nil
}

// catchUp brings the index to the store's files: the keys of files it does not
// know are read and put in. What it says of files that are gone, or of rows
// that have died, is never believed (isLive), so the difference of two sets of
// files is all there is to it: after a kill, after the state folder was
// deleted (the base is empty then), and after others rewrote files.
func (t *Table) catchUp(ctx context.Context, epoch uint64) error {
	defer func() { t.unread = nil }()
	if t.index == nil {
		return nil
	}
	names := t.fileNames()
	if t.index.State().Phase == index.Empty {
		err := t.index.Load(t.live, func(put func(index.Key, index.Loc) error) error { return t.readKeys(ctx, put) })
		if err != nil {
			return err
		}
		return t.index.CommitLoad(epoch, 0, names)
	}
	if err := t.readKeys(ctx, t.index.Put); err != nil {
		return err
	}
	if err := t.index.Seal(); err != nil {
		return err
	}
	return t.index.Merge(max(epoch, t.index.State().N), 0, names, nil)
}

// readKeys puts the live rows of the unread files.
func (t *Table) readKeys(ctx context.Context, put func(index.Key, index.Loc) error) error {
	fields := t.layout.fields(t.layout.keyColumns())
	for no := range t.unread {
		f := t.files[no]
		err := t.store.Read(ctx, f.path, fields, nil, func(first int64, rec arrow.RecordBatch) error {
			cols := rec.Columns()
			for i := range int(rec.NumRows()) {
				pos := uint32(first) + uint32(i)
				if f.isDead(pos) {
					continue
				}
				k, err := t.key.row(cols, i)
				if err != nil {
					return fmt.Errorf("row %d: %w", pos, err)
				}
				if err := put(k, index.Loc{File: no, Pos: pos}); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return fmt.Errorf("read keys of %s: %w", f.path, err)
		}
	}
	return nil
}

func (t *Table) fileNames() []index.FileName {
	names := make([]index.FileName, 0, len(t.files))
	for _, f := range t.files {
		if f.enc == nil {
			names = append(names, index.FileName{No: f.no, Path: f.path, Partial: f.partial})
		}
	}
	for no, m := range t.moved {
		names = append(names, index.FileName{No: no, Path: m.From})
	}
	return names
}

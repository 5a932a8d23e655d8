package lake

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"firn/wal"
)

// refuse compares the source with the lake's head and says why they don't
// belong together any more (PROTOCOL §4). from is the position the stream
// would start at, slot the slot's state.
func refuse(ctx context.Context, src Source, head *HeadState, id Identity, slot *SlotState, from wal.LSN) error {
	was := head.Source
	diverged := func(text, fix string) error { return &Refusal{Code: CodeDiverged, Text: text, Fix: fix} }
	const anew = "Nothing has been changed. If that is meant, begin a new lake: `firn teardown`, or another --warehouse."
	if id.SystemID != was.SystemID {
		return diverged(fmt.Sprintf("This lake mirrors the Postgres cluster with system identifier %s, and the server is %s", was.SystemID, id.SystemID), anew)
	}
	if id.Database != was.Database {
		return diverged(fmt.Sprintf("This lake mirrors database %q, and the connection is to %q", was.Database, id.Database), anew)
	}
	if id.Timeline < was.Timeline {
		return diverged(fmt.Sprintf("The server is on timeline %d and the lake has followed it to timeline %d: it has been restored from a backup", id.Timeline, was.Timeline), anew)
	}
	if id.Timeline > was.Timeline {
		at, ok, err := src.SwitchPoint(ctx, was.Timeline)
		if err != nil {
			return fmt.Errorf("read timeline history: %w", err)
		}
		if !ok || at < head.LSN {
			return diverged(fmt.Sprintf("The server left timeline %d at %s and the lake has commits up to %s that it does not have", was.Timeline, at, head.LSN), anew)
		}
	}
	if id.WALPosition < head.LSN {
		return diverged(fmt.Sprintf("The server's WAL ends at %s and the lake has commits up to %s: the server has been restored from an older copy", id.WALPosition, head.LSN), anew)
	}
	switch {
	case slot == nil:
		return diverged("The replication slot is gone, and with it the changes since "+from.String(), anew)
	case slot.Lost != "":
		return diverged(fmt.Sprintf("Postgres has invalidated the replication slot (%s), and with it the changes since %s", slot.Lost, from), anew+" A larger max_slot_wal_keep_size gives the lake more time to catch up.")
	case slot.ConfirmedFlush > from:
		return diverged(fmt.Sprintf("The replication slot stands at %s and the lake at %s: the slot was recreated, or another program advanced it, and the changes between are lost", slot.ConfirmedFlush, from), anew)
	}
	return nil
}

// birth creates the slot: an entry that says so first, the slot, then an entry
// with its consistent point (PROTOCOL §3). The snapshot is the caller's.
func (s *session) birth(ctx context.Context, id Identity, lock []wal.TableName) (Snapshot, error) {
	slot, err := s.o.Source.Slot(ctx)
	if err != nil {
		return nil, err
	}
	if slot != nil {
		if !s.head.Empty && s.head.Source != nil && s.head.Source.Creating {
			err = s.o.Source.DropSlot(ctx) // ours: created, and then we were killed
		} else {
			err = &Refusal{Code: CodeDiverged, Text: "The replication slot exists already, and this lake is empty",
				Fix: "Another lake may be using it: choose another `slot:` in firn.yaml, or drop it with `firn teardown`."}
		}
		if err != nil {
			return nil, err
		}
	}
	src := &SourceState{SystemID: id.SystemID, Timeline: id.Timeline, Database: id.Database, Creating: true}
	if err := s.o.Head.Publish(ctx, Publication{Source: src}); err != nil {
		return nil, fmt.Errorf("write the lake's first entry: %w", err)
	}
	s.o.Fail("before-slot")
	snap, err := s.o.Source.Snapshot(ctx, true, lock)
	if err != nil {
		return nil, fmt.Errorf("create replication slot: %w", err)
	}
	s.o.Fail("after-slot")
	src = &SourceState{SystemID: id.SystemID, Timeline: id.Timeline, Database: id.Database, Point: snap.Point()}
	if err := s.o.Head.Publish(ctx, Publication{Source: src, Stamp: Stamp{LSN: snap.Point(), Kind: "advance"}}); err != nil {
		snap.Close()
		return nil, fmt.Errorf("write the slot's entry: %w", err)
	}
	return snap, nil
}

// begin brings source and lake together: it finds the tables, creates or
// checks the slot, starts the stream, claims the lake, and opens the tables at
// the head.
func (s *session) begin(ctx context.Context) error {
	// In this order, for another firn may be running, and its slot never passes
	// its head, nor that the server.
	slot, err := s.o.Source.Slot(ctx)
	if err != nil {
		return fmt.Errorf("look at replication slot: %w", err)
	}
	if s.head, err = s.o.Head.Read(ctx); err != nil {
		return fmt.Errorf("read the lake's head: %w", err)
	}
	id, err := s.o.Source.Identify(ctx)
	if err != nil {
		return fmt.Errorf("identify source: %w", err)
	}
	s.source = fmt.Sprintf("%s/%d/%s", id.SystemID, id.Timeline, id.Database)
	born := s.head.Source == nil || s.head.Source.Creating
	if !born {
		// Before anything is changed in the source.
		if err := refuse(ctx, s.o.Source, s.head, id, slot, s.startLSN()); err != nil {
			return err
		}
	}
	look, err := s.o.Source.Look(ctx)
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	s.enroll(look)
	names := s.published()
	if born && len(names.tables)+len(names.appended) == 0 {
		return &Refusal{Code: CodePreflight, Text: "No table can be mirrored" + s.whyNone(), Fix: "See --tables and the reasons in `firn doctor`."}
	}
	if s.listed, err = s.o.Source.Publish(ctx, names.tables, names.appended); err != nil {
		return fmt.Errorf("set up publication: %w", err)
	}
	if born {
		if s.initial, err = s.birth(ctx, id, slices.Concat(names.tables, names.appended)); err != nil {
			return err
		}
		if s.head, err = s.o.Head.Read(ctx); err != nil {
			return fmt.Errorf("read the lake's head: %w", err)
		}
	}
	s.received = s.startLSN()
	if s.stream, err = s.o.Source.Stream(ctx, s.received, !s.unstreamed); err != nil {
		if errors.Is(err, ErrSlotInUse) {
			return &Refusal{Code: CodeFenced, Text: "The replication slot is in use by another process", Fix: "Another firn is running on this lake; stop it first."}
		}
		return fmt.Errorf("start stream: %w", err)
	}
	s.group.Go(func() error { // from here on, so that Postgres is answered
		if err := s.stream.Run(s.ctx); err != nil && s.ctx.Err() == nil {
			return fmt.Errorf("read replication stream: %w", err)
		}
		return nil
	})
	if err := s.o.Head.Claim(ctx); err != nil {
		return fmt.Errorf("claim the lake: %w", err)
	}
	if s.o.Claimed != nil {
		s.group.Go(func() error {
			if err := s.o.Claimed(s.ctx); err != nil && s.ctx.Err() == nil {
				s.log.Warn("clear up after earlier runs", "err", err)
			}
			return nil
		})
	}
	was := s.head
	if s.head, err = s.o.Head.Read(ctx); err != nil {
		return fmt.Errorf("read the lake's head: %w", err)
	}
	if s.head.LSN != was.LSN || s.head.Epoch != was.Epoch || !slices.Equal(s.head.Tables, was.Tables) {
		if err := s.enrollAgain(look); err != nil {
			return err
		}
	}
	s.commit = lastCommit{time: s.head.CommitTime, xid: s.head.XID}
	if s.commit.time.IsZero() { // a load before the first commit shows Postgres as of about now
		s.commit.time = s.o.Now().UTC()
	}
	s.durable = s.head.LSN
	for _, t := range s.head.Tables {
		s.standing(map[Ident]TableState{t.Ident: t.TableState})
	}
	s.position = s.head.LSN
	s.sealedLSN = s.head.LSN
	s.epochNo, s.committedEpoch = s.head.Epoch, s.head.Epoch
	if id.Timeline != s.head.Source.Timeline {
		src := *s.head.Source
		src.Timeline = id.Timeline
		if err := s.o.Head.Publish(ctx, Publication{Source: &src}); err != nil {
			return fmt.Errorf("follow the server to timeline %d: %w", id.Timeline, err)
		}
	}
	return s.openTables(ctx)
}

// enrollAgain does so from what the head says now: until the claim a put of the
// run before may come late, and others commit at any time.
func (s *session) enrollAgain(look Look) error {
	if at := s.startLSN(); at < s.received {
		return fmt.Errorf("the lake has moved, and a table to %s, which is before the stream's start at %s: %w", at, s.received, errRestart)
	}
	clear(s.members)
	clear(s.states)
	s.enroll(look)
	return nil
}

// startLSN is where the stream has to begin: the head, or the oldest position
// of a table that is followed at a distance.
func (s *session) startLSN() wal.LSN {
	at := s.head.LSN
	for _, t := range s.head.Tables {
		if t.State == Behind && !t.Resync && t.LSN < at {
			at = t.LSN
		}
	}
	return at
}

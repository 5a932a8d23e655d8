package slot

import (
	"context"
	"time"

	"firn/wal"
)

// asyncFlush is longer than Postgres' WAL writer leaves a commit made under
// synchronous_commit=off unflushed (three times wal_writer_delay's 200 ms).
const asyncFlush = time.Second

// CommittedLSN is a position that has every commit before the call in front of
// it, and that the stream will reach. That is the insert position, for under
// synchronous_commit=off one's own commit may not be flushed yet; but WAL
// without a commit can stay unflushed, and so unsent, for some fifteen seconds.
// After one second an empty logical message (which pgoutput does not send)
// makes Postgres flush it; a standby can't, and there the flushed position, which
// may lie within a record, has to do.
func (s *Source) CommittedLSN(ctx context.Context) (wal.LSN, error) {
	insert, err := s.InsertLSN(ctx)
	if err != nil {
		return 0, err
	}
	for until := time.Now().Add(asyncFlush); ; {
		flushed, err := s.FlushLSN(ctx)
		if err != nil {
			return 0, err
		}
		if flushed >= insert {
			return insert, nil
		}
		if time.Now().After(until) {
			var text string
			if err := s.one(ctx, "SELECT pg_logical_emit_message(true, 'firn', '')::text", nil, &text); err != nil {
				return flushed, nil
			}
			return insert, nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

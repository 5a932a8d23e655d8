package slot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"firn/wal"
)

// LockOptions bounds how CreateSlot gets in the way of others. Zero values
// become the defaults.
type LockOptions struct {
	Limit    time.Duration // 10 s: for one attempt, and for each table's lock in it
	Patience time.Duration // for all attempts; 0: until the context ends
	MaxPause time.Duration // 30 s: the longest pause between two attempts
	// Report is told why an attempt was given up, before the pause. It is
	// called by CreateSlot's goroutine. The log has the same.
	Report func(Obstacle)
}

// Obstacle is why the slot could not be made yet.
type Obstacle struct {
	Attempt  int
	Blockers []Session // for whose transactions the slot, or a lock, waits
	Waiters  []Session // who waited for our locks meanwhile
	Pause    time.Duration
	Err      error
}

func (o Obstacle) String() string {
	var parts []string
	if len(o.Blockers) > 0 {
		parts = append(parts, "waiting for the transactions of "+joinSessions(o.Blockers))
	}
	if len(o.Waiters) > 0 {
		parts = append(parts, "standing aside for "+joinSessions(o.Waiters))
	}
	if len(parts) == 0 {
		return o.Err.Error()
	}
	return strings.Join(parts, "; ")
}

func joinSessions(ss []Session) string {
	out := make([]string, 0, len(ss))
	for _, x := range ss {
		out = append(out, x.String())
	}
	return strings.Join(out, ", ")
}

// CreateSlot locks the tables, makes a slot and exports its snapshot. A
// temporary slot lives until the Snapshot is closed.
//
// Making a slot waits for the end of every transaction that runs. With the locks
// held that can close a circle Postgres doesn't see: a user's ALTER waits for
// our lock, its transaction has an xid, and we wait for that. So an attempt that
// isn't through within Limit, or has made anybody wait, is cancelled, the locks
// are released, and it is tried again after a pause.
//
// Errors: ErrBusy when Patience is over, ErrSlotExists, ErrNoSlotFree,
// ErrPrivilege, and the server's where a table no longer exists.
func (s *Source) CreateSlot(ctx context.Context, name string, temporary bool, lock []TableName, o LockOptions) (*Snapshot, error) {
	if o.Limit == 0 {
		o.Limit = 10 * time.Second
	}
	if o.MaxPause == 0 {
		o.MaxPause = 30 * time.Second
	}
	start, pause := time.Now(), 500*time.Millisecond
	for attempt := 1; ; attempt++ {
		sn, obs, err := s.tryCreate(ctx, name, temporary, lock, o.Limit)
		if err == nil {
			return sn, nil
		}
		if obs == nil || ctx.Err() != nil {
			return nil, fmt.Errorf("create slot %s: %w", name, err)
		}
		pause = min(pause*2, o.MaxPause)
		obs.Attempt, obs.Pause, obs.Err = attempt, pause, err
		if o.Patience > 0 && time.Since(start)+pause > o.Patience {
			return nil, fmt.Errorf("create slot %s: %w: %s: %w", name, ErrBusy, obs, err)
		}
		s.o.Logger.Warn("replication slot not created yet", "slot", name, "reason", obs.String(), "retry", pause)
		if o.Report != nil {
			o.Report(*obs)
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// errGivenUp ends an attempt that took too long or made others wait.
var errGivenUp = errors.New("given up so that nobody waits")

// tryCreate makes one attempt. An Obstacle says that another may succeed.
func (s *Source) tryCreate(ctx context.Context, name string, temporary bool, lock []TableName, limit time.Duration) (_ *Snapshot, _ *Obstacle, err error) {
	var locks *lockStack
	if len(lock) > 0 {
		locks, err = s.lockTables(ctx, lock, max(limit.Milliseconds(), 1))
		if c := code(err); c == "55P03" || c == "40P01" {
			return nil, &Obstacle{}, err
		}
		if err != nil {
			return nil, nil, err
		}
	}
	defer func() {
		if err != nil && locks != nil {
			locks.close()
		}
	}()
	repl, _, err := s.connectReplication(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			closePgConn(repl)
		}
	}()

	done := make(chan struct{})
	watched := make(chan *Obstacle, 1)
	go func() { watched <- s.watchCreation(ctx, repl, locks, limit, done) }()
	rows, err := exec(ctx, repl, createCommand(name, temporary, majorVersion(repl)))
	close(done)
	obs := <-watched
	if err != nil {
		switch code(err) {
		case "42710":
			return nil, nil, fmt.Errorf("%w: %w", ErrSlotExists, err)
		case "53400":
			return nil, nil, fmt.Errorf("%w: raise max_replication_slots or drop a slot that nobody uses: %w", ErrNoSlotFree, err)
		case "57014":
			if obs != nil {
				return nil, obs, errGivenUp
			}
		}
		return nil, nil, err
	}
	if len(rows) != 1 || len(rows[0]) < 3 {
		return nil, nil, fmt.Errorf("CREATE_REPLICATION_SLOT returned %d rows", len(rows))
	}
	lsn, err := wal.ParseLSN(string(rows[0][1]))
	if err != nil {
		return nil, nil, err
	}
	return &Snapshot{ConsistentPoint: lsn, Name: string(rows[0][2]), Slot: name, s: s, repl: repl, locks: locks}, nil, nil
}

func createCommand(name string, temporary bool, major int) string {
	cmd := "CREATE_REPLICATION_SLOT " + ident(name)
	if temporary {
		cmd += " TEMPORARY"
	}
	if major < 15 {
		return cmd + " LOGICAL pgoutput EXPORT_SNAPSHOT"
	}
	return cmd + " LOGICAL pgoutput (SNAPSHOT 'export')"
}

const watchEvery = 250 * time.Millisecond

// watchCreation cancels the command on repl when somebody waits for our locks
// or the limit is over, and returns then who was in the way; nil if the command
// ended before. After a cancellation that came too late the command has
// succeeded, and the Obstacle is ignored.
func (s *Source) watchCreation(ctx context.Context, repl *pgconn.PgConn, locks *lockStack, limit time.Duration, done <-chan struct{}) *Obstacle {
	deadline := time.After(limit)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var obs Obstacle
	for over := false; !over; {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		case <-deadline:
			over = true
		case <-tick.C:
		}
		var err error
		if obs.Blockers, err = s.blockers(ctx, int32(repl.PID())); err == nil && locks != nil {
			obs.Waiters, err = s.Waiters(ctx, locks.pid)
		}
		if err != nil {
			s.o.Logger.Warn("cannot see who waits for whom", "err", err)
		}
		over = over || len(obs.Waiters) > 0
	}
	for {
		cctx, cancel := context.WithTimeout(ctx, closeTimeout)
		err := repl.CancelRequest(cctx)
		cancel()
		if err != nil {
			s.o.Logger.Warn("cannot cancel the creation of a slot", "err", err)
		}
		// A cancel request may be lost, or come between two commands.
		select {
		case <-done:
			return &obs
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

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
			return nil, fmt.Errorf("create slot %s: %w: %s", name, ErrBusy, obs)
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
	var pid int32
	if len(lock) > 0 {
		if locks, err = s.newLockStack(ctx, limit); err != nil {
			return nil, nil, err
		}
		defer func() {
			if err != nil {
				locks.close()
			}
		}()
		pid = locks.pid
		if obs, err := s.guard(ctx, locks.conn.PgConn(), pid, limit, func() error { return locks.lock(ctx, lock) }); err != nil {
			return nil, obs, err
		}
	}
	repl, _, err := s.connectReplication(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			closePgConn(repl)
		}
	}()
	var rows [][][]byte
	obs, err := s.guard(ctx, repl, pid, limit, func() (err error) {
		rows, err = run(ctx, repl, createCommand(name, temporary, majorVersion(repl)))
		return err
	})
	switch code(err) {
	case "42710":
		return nil, nil, fmt.Errorf("%w: %w", ErrSlotExists, err)
	case "53400":
		return nil, nil, fmt.Errorf("%w: raise max_replication_slots or drop a slot that nobody uses: %w", ErrNoSlotFree, err)
	}
	if err != nil {
		return nil, obs, err
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

// guard runs command on c. When that takes longer than limit, or somebody waits
// for a lock of the backend lockPID (0: none), it is cancelled, and the Obstacle
// says who was in the way.
func (s *Source) guard(ctx context.Context, c *pgconn.PgConn, lockPID int32, limit time.Duration, command func() error) (*Obstacle, error) {
	done := make(chan struct{})
	watched := make(chan *Obstacle, 1)
	go func() { watched <- s.watch(ctx, c, lockPID, limit, done) }()
	err := command()
	close(done)
	obs := <-watched
	switch code(err) {
	case "57014":
		if obs != nil {
			return obs, errGivenUp
		}
	case "55P03", "40P01": // lock_timeout, or we were a deadlock's victim
		if obs == nil {
			obs = &Obstacle{}
		}
		return obs, err
	}
	return nil, err
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

// watch looks on while a command runs on c, and cancels it when it must end. It
// returns who was in the way, as last seen; nil if nobody was and nothing was
// cancelled. A cancellation may come too late: then the command has succeeded.
func (s *Source) watch(ctx context.Context, c *pgconn.PgConn, lockPID int32, limit time.Duration, done <-chan struct{}) *Obstacle {
	deadline := time.After(limit)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var seen *Obstacle
	for over := false; !over; {
		select {
		case <-done:
			return seen
		case <-ctx.Done():
			return nil
		case <-deadline:
			over = true
		case <-tick.C:
		}
		var obs Obstacle
		var err error
		if obs.Blockers, err = s.blockers(ctx, int32(c.PID())); err == nil && lockPID != 0 {
			obs.Waiters, err = s.Waiters(ctx, lockPID)
		}
		if err != nil && ctx.Err() == nil {
			s.o.Logger.Warn("cannot see who waits for whom", "err", err)
		}
		over = over || len(obs.Waiters) > 0
		if over || len(obs.Blockers) > 0 {
			seen = &obs
		}
	}
	for {
		cctx, cancel := context.WithTimeout(ctx, closeTimeout)
		err := c.CancelRequest(cctx)
		cancel()
		if err != nil && ctx.Err() == nil {
			s.o.Logger.Warn("cannot cancel a command that is in the way of others", "err", err)
		}
		// A cancel request may be lost, or come between two commands.
		select {
		case <-done:
			return seen
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

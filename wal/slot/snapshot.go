package slot

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"firn/wal"
)

// Snapshot is a replication slot's birth: Postgres exactly as it stood at
// ConsistentPoint, readable by a Copier until Close. Commits whose record starts at
// or after that point are in the slot's stream, earlier ones in the snapshot.
//
// It keeps two connections: the one that made the slot, whose next command
// would end the snapshot, and one that holds ACCESS SHARE locks on the tables
// named to CreateSlot. Without these a TRUNCATE or a rewrite before the COPY
// would empty the table in the snapshot, silently.
type Snapshot struct {
	ConsistentPoint wal.LSN
	Name            string // for SET TRANSACTION SNAPSHOT
	Slot            string

	s     *Source
	repl  *pgconn.PgConn
	locks *lockStack
	once  sync.Once
}

// Release gives up the lock on one table: once its Copier is open (it has locks
// of its own until it is closed) or it is not to be loaded after all. Locks
// are a stack in the order of CreateSlot's list, first on top: one is really
// given up when all before it have been released too, so name the tables in the
// order in which they will be loaded. Releasing a table twice, or one not locked, is
// no error.
func (sn *Snapshot) Release(ctx context.Context, t TableName) error {
	if sn.locks == nil {
		return nil
	}
	return sn.locks.release(ctx, t)
}

// PIDs are the backends that hold the snapshot and its locks.
func (sn *Snapshot) PIDs() []int32 {
	out := []int32{int32(sn.repl.PID())}
	if sn.locks != nil {
		out = append(out, sn.locks.pid)
	}
	return out
}

// Close releases the locks, ends the snapshot, and drops the slot if it is a
// temporary one. COPYs that have begun go on.
func (sn *Snapshot) Close() {
	sn.once.Do(func() {
		if sn.locks != nil {
			sn.locks.close()
		}
		closePgConn(sn.repl)
	})
}

// lockStack holds ACCESS SHARE on tables in one transaction, each under a
// savepoint of its own, for rolling back to a savepoint is the only way to give
// up some locks of a transaction and keep others. The alternative, a connection
// for each table, would take as many as there are tables.
type lockStack struct {
	s    *Source
	conn *pgx.Conn
	pid  int32

	mu       sync.Mutex
	stack    []TableName // the last is on top
	released map[TableName]bool
}

const lockBatch = 100

// newLockStack opens the transaction. Waiting for a lock is ended by guard, which
// names who holds it; lock_timeout is there should that fail.
func (s *Source) newLockStack(ctx context.Context, limit time.Duration) (*lockStack, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	l := &lockStack{s: s, conn: c, pid: int32(c.PgConn().PID()), released: make(map[TableName]bool)}
	s.track(uint32(l.pid))
	if _, err := run(ctx, c.PgConn(), fmt.Sprintf("BEGIN; SET LOCAL lock_timeout = %d", (2*limit).Milliseconds()+1000)); err != nil {
		l.close()
		return nil, fmt.Errorf("begin to lock tables: %w", err)
	}
	return l, nil
}

// lock locks the last table first, so that the first is on top.
func (l *lockStack) lock(ctx context.Context, tables []TableName) error {
	seen := make(map[TableName]bool, len(tables))
	var order []TableName
	for _, t := range tables {
		if !seen[t] {
			seen[t] = true
			order = append(order, t)
		}
	}
	slices.Reverse(order)
	sql := ""
	for i, t := range order {
		// A partitioned table's LOCK takes its partitions too.
		sql += fmt.Sprintf("SAVEPOINT t%d; LOCK TABLE %s IN ACCESS SHARE MODE;", i, identTable(t))
		l.stack = append(l.stack, t)
		if (i+1)%lockBatch == 0 || i == len(order)-1 {
			if _, err := run(ctx, l.conn.PgConn(), sql); err != nil {
				return fmt.Errorf("lock tables: %w", err)
			}
			sql = ""
		}
	}
	return nil
}

func (l *lockStack) release(ctx context.Context, t TableName) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released[t] = true
	top := len(l.stack)
	for top > 0 && l.released[l.stack[top-1]] {
		top--
	}
	if top == len(l.stack) {
		return nil
	}
	// Rolling back keeps the savepoint itself, which holds nothing.
	if _, err := l.conn.Exec(ctx, fmt.Sprintf("ROLLBACK TO SAVEPOINT t%d", top)); err != nil {
		return fmt.Errorf("release lock on %s: %w", t, classify(err))
	}
	l.stack = l.stack[:top]
	return nil
}

func (l *lockStack) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	closeConn(l.conn)
	l.s.untrack(uint32(l.pid))
}

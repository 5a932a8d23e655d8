package slot

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Session is another client of the database, named so that a user knows whom
// to ask. Query needs pg_read_all_stats for other users' sessions.
type Session struct {
	PID               int32
	User, Application string
	State             string // active, idle in transaction, …
	Query             string // its first 200 bytes
	Table             string // that it waits for, if it does
	For               time.Duration
}

func (x Session) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pid %d", x.PID)
	if x.User != "" {
		fmt.Fprintf(&b, " (%s", x.User)
		if x.Application != "" {
			fmt.Fprintf(&b, ", %s", x.Application)
		}
		b.WriteByte(')')
	}
	if x.For > 0 {
		fmt.Fprintf(&b, " for %s", x.For.Round(time.Second))
	}
	if x.Query != "" {
		fmt.Fprintf(&b, ": %s", strings.Join(strings.Fields(x.Query), " "))
	}
	return b.String()
}

// Waiters names the sessions that wait for a lock which one of the given
// backends holds (or waits for, ahead of them). Without pids these are the
// source's own snapshots and COPYs. For is how long they have waited.
func (s *Source) Waiters(ctx context.Context, pids ...int32) ([]Session, error) {
	if len(pids) == 0 {
		s.mu.Lock()
		for pid := range s.pids {
			pids = append(pids, int32(pid))
		}
		s.mu.Unlock()
		if len(pids) == 0 {
			return nil, nil
		}
	}
	out, err := s.sessions(ctx, `
		WITH w AS (
			SELECT pid, min(waitstart) AS since, min(relation::regclass::text) AS rel
			FROM pg_locks WHERE NOT granted AND pid <> ALL ($1::int[]) GROUP BY pid)
		SELECT w.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), coalesce(a.state, ''),
		       coalesce(left(a.query, 200), ''), coalesce(w.rel, ''),
		       coalesce(extract(epoch FROM clock_timestamp() - w.since), 0)::float8
		FROM w JOIN pg_stat_activity a ON a.pid = w.pid
		WHERE pg_blocking_pids(w.pid) && $1::int[] ORDER BY w.since`, pids)
	if err != nil {
		return nil, fmt.Errorf("list sessions waiting for %d: %w", pids, err)
	}
	return out, nil
}

// blockers names the sessions that the backend pid waits for. For is the age of
// their transactions.
func (s *Source) blockers(ctx context.Context, pid int32) ([]Session, error) {
	out, err := s.sessions(ctx, `
		SELECT a.pid, coalesce(a.usename, ''), coalesce(a.application_name, ''), coalesce(a.state, ''),
		       coalesce(left(a.query, 200), ''), '',
		       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8
		FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids($1)) ORDER BY a.xact_start`, pid)
	if err != nil {
		return nil, fmt.Errorf("list sessions that block %d: %w", pid, err)
	}
	return out, nil
}

func (s *Source) sessions(ctx context.Context, sql string, args ...any) (out []Session, err error) {
	err = s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
		out = nil
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		var x Session
		var seconds float64
		_, err = pgx.ForEachRow(rows, []any{&x.PID, &x.User, &x.Application, &x.State, &x.Query, &x.Table, &seconds}, func() error {
			x.For = time.Duration(seconds * float64(time.Second))
			out = append(out, x)
			return nil
		})
		return err
	})
	return out, err
}

package slot

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"firn/wal"
)

// Identity says which server, and which branch of its history, answers.
type Identity struct {
	SystemID    string // pg_control's; the same for a standby and for a restored copy
	Timeline    int32
	Database    string
	WALPosition wal.LSN // flushed (on a standby: replayed) so far
	Version     int     // such as 150018
}

// Identify asks by IDENTIFY_SYSTEM, over a replication connection of its own.
func (s *Source) Identify(ctx context.Context) (Identity, error) {
	rows, major, err := s.command(ctx, "IDENTIFY_SYSTEM")
	if err != nil {
		return Identity{}, fmt.Errorf("identify server: %w", err)
	}
	if len(rows) != 1 || len(rows[0]) < 4 {
		return Identity{}, fmt.Errorf("identify server: IDENTIFY_SYSTEM returned %d rows", len(rows))
	}
	r := rows[0]
	tli, err := strconv.ParseInt(string(r[1]), 10, 32)
	if err != nil {
		return Identity{}, fmt.Errorf("identify server: timeline %q: %w", r[1], err)
	}
	lsn, err := wal.ParseLSN(string(r[2]))
	if err != nil {
		return Identity{}, fmt.Errorf("identify server: %w", err)
	}
	v, err := s.Version(ctx)
	if err != nil {
		return Identity{}, err
	}
	if v/10000 != major {
		return Identity{}, fmt.Errorf("identify server: the replication connection reached version %d, an ordinary one %d: the URL names two servers", major, v/10000)
	}
	return Identity{SystemID: string(r[0]), Timeline: int32(tli), Database: string(r[3]), WALPosition: lsn, Version: v}, nil
}

// TimelineSwitch ends a timeline: history went on as another one from LSN.
type TimelineSwitch struct {
	Timeline int32 // the one that ended
	LSN      wal.LSN
}

// TimelineHistory returns the switches that led to timeline tli, oldest first;
// none for timeline 1.
func (s *Source) TimelineHistory(ctx context.Context, tli int32) ([]TimelineSwitch, error) {
	if tli <= 1 {
		return nil, nil
	}
	rows, _, err := s.command(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", tli))
	if err != nil {
		return nil, fmt.Errorf("read history of timeline %d: %w", tli, err)
	}
	if len(rows) != 1 || len(rows[0]) < 2 {
		return nil, fmt.Errorf("read history of timeline %d: %d rows", tli, len(rows))
	}
	sw, err := parseHistory(string(rows[0][1]))
	if err != nil {
		return nil, fmt.Errorf("read history of timeline %d: %w", tli, err)
	}
	return sw, nil
}

// parseHistory reads lines of timeline, LSN and reason, tab-separated, with
// comments from '#'.
func parseHistory(text string) ([]TimelineSwitch, error) {
	var out []TimelineSwitch
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) < 2 {
			return nil, fmt.Errorf("parse line %q: no LSN", line)
		}
		t, err := strconv.ParseInt(f[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parse line %q: %w", line, err)
		}
		lsn, err := wal.ParseLSN(f[1])
		if err != nil {
			return nil, fmt.Errorf("parse line %q: %w", line, err)
		}
		out = append(out, TimelineSwitch{Timeline: int32(t), LSN: lsn})
	}
	return out, nil
}

// InsertLSN is where the next WAL record will go: all commits whose
// acknowledgement a client has seen lie before it, synchronous_commit=off
// included. On a standby it is the position replayed.
func (s *Source) InsertLSN(ctx context.Context) (wal.LSN, error) {
	var text string
	err := s.one(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text`, nil, &text)
	if err != nil {
		return 0, fmt.Errorf("read WAL position: %w", err)
	}
	return wal.ParseLSN(text)
}

// FlushLSN is how far the server's WAL may be sent: what it has flushed, on a
// standby what it has replayed. InsertLSN may stay past it while nothing is
// written: at the end of a page it counts the next one's header.
func (s *Source) FlushLSN(ctx context.Context) (wal.LSN, error) {
	var text string
	err := s.one(ctx, `SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text`, nil, &text)
	if err != nil {
		return 0, fmt.Errorf("read flushed WAL position: %w", err)
	}
	return wal.ParseLSN(text)
}

// command runs one replication command on a connection of its own and returns
// its rows and the server's major version.
func (s *Source) command(ctx context.Context, cmd string) ([][][]byte, int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.QueryTimeout)
	defer cancel()
	c, _, err := s.connectReplication(ctx, false)
	if err != nil {
		return nil, 0, err
	}
	defer closePgConn(c)
	rows, err := run(ctx, c, cmd)
	return rows, majorVersion(c), err
}

func run(ctx context.Context, c *pgconn.PgConn, sql string) ([][][]byte, error) {
	res, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, classify(err)
	}
	if len(res) == 0 {
		return nil, nil
	}
	return res[len(res)-1].Rows, nil
}

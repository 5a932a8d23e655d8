package slot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"firn/wal"
)

// Table, Column, Leaf and TableName are wal's, named here for short.
type (
	Table     = wal.Table
	Column    = wal.TableColumn
	Leaf      = wal.Leaf
	TableName = wal.TableName
)

// Options says which database to read and by which slot and publication. Zero
// values of the rest become the defaults named beside them.
type Options struct {
	URL         string // postgres://… or libpq's key=value form
	Slot        string
	Publication string
	Logger      *slog.Logger // discards
	// Append says which tables are mirrored by their inserts and truncates
	// alone; nil: none.
	Append func(TableName) bool

	ApplicationName string        // "firn"; as pg_stat_activity shows it
	ConnectTimeout  time.Duration // 15 s for each address, unless the URL has connect_timeout
	QueryTimeout    time.Duration // 30 s; for each question to the catalog
	SlotWait        time.Duration // 30 s; how long a slot in use by another is waited for
	Batches         int           // 8; batches of 256 KB that the stream may hold, those with the consumer included
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ApplicationName == "" {
		o.ApplicationName = "firn"
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 15 * time.Second
	}
	if o.QueryTimeout == 0 {
		o.QueryTimeout = 30 * time.Second
	}
	if o.SlotWait == 0 {
		o.SlotWait = 30 * time.Second
	}
	if o.Batches < 2 {
		o.Batches = 8
	}
}

// Source is one Postgres database. Its methods may be called by several
// goroutines at once; it keeps at most two ordinary connections for questions
// and opens others for a COPY, a slot or a stream while these last.
type Source struct {
	o     Options
	cfg   *pgx.ConnConfig
	idle  chan *pgx.Conn // always holds poolMax less those in use; nil: not connected
	types typeCache

	mu     sync.Mutex
	closed bool
	pids   map[uint32]struct{} // of the connections that may hold locks on tables
}

const poolMax = 2

// Open reads the options and makes one connection, so that a wrong address or
// password is known at once. It changes nothing in the database.
//
// Errors: ErrUnreachable, ErrAuth, ErrNotReady, or a configuration error.
func Open(ctx context.Context, o Options) (*Source, error) {
	o.setDefaults()
	cfg, err := parseConfig(o)
	if err != nil {
		return nil, err
	}
	s := &Source{o: o, cfg: cfg, idle: make(chan *pgx.Conn, poolMax), pids: make(map[uint32]struct{})}
	for range poolMax {
		s.idle <- nil
	}
	if err := s.query(ctx, func(ctx context.Context, c *pgx.Conn) error { return c.Ping(ctx) }); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the ordinary connections. Streams and snapshots have their own
// and end with them.
func (s *Source) Close() {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return
	}
	for range poolMax {
		if c := <-s.idle; c != nil {
			closeConn(c)
		}
	}
	for range poolMax {
		s.idle <- nil
	}
}

// dropIdle closes the ordinary connections that nobody uses now.
func (s *Source) dropIdle() {
	for range poolMax {
		select {
		case c := <-s.idle:
			if c != nil {
				closeConn(c)
			}
			s.idle <- nil
		default:
		}
	}
}

// Database is the name of the database, as the URL and its defaults give it.
func (s *Source) Database() string { return s.cfg.Database }

// query lends fn an ordinary connection for at most QueryTimeout. A connection
// that turns out to have been lost since its last use is replaced once, so fn
// must do no harm when it runs twice.
func (s *Source) query(ctx context.Context, fn func(context.Context, *pgx.Conn) error) error {
	var c *pgx.Conn
	select {
	case c = <-s.idle:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.idle <- c }()
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return errors.New("query Postgres: the source is closed")
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.QueryTimeout)
	defer cancel()

	used := c != nil && !c.IsClosed()
	for {
		if c == nil || c.IsClosed() {
			var err error
			if c, err = s.connect(ctx); err != nil {
				c = nil
				return err
			}
		}
		err := fn(ctx, c)
		if err == nil {
			return nil
		}
		if used && c.IsClosed() && ctx.Err() == nil {
			used = false
			continue
		}
		if c.PgConn().TxStatus() != 'I' {
			closeConn(c)
		}
		return classify(err)
	}
}

// one reads a single row into dst.
func (s *Source) one(ctx context.Context, sql string, args []any, dst ...any) error {
	return s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, sql, args...).Scan(dst...)
	})
}

// Version is the server's version number, such as 150018.
func (s *Source) Version(ctx context.Context) (int, error) {
	var v int
	if err := s.one(ctx, `SELECT current_setting('server_version_num')::int`, nil, &v); err != nil {
		return 0, fmt.Errorf("read server version: %w", err)
	}
	return v, nil
}

func (s *Source) track(pid uint32) {
	s.mu.Lock()
	s.pids[pid] = struct{}{}
	s.mu.Unlock()
}

func (s *Source) untrack(pid uint32) {
	s.mu.Lock()
	delete(s.pids, pid)
	s.mu.Unlock()
}

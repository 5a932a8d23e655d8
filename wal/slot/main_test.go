package slot

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/wal"
	"firn/wal/localpg"
)

// shared is one server for all tests that don't stop it. FIRN_TEST_PG chooses
// its major version.
var shared struct {
	sync.Mutex
	srv    *localpg.Server
	binDir string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.srv != nil {
		if err := shared.srv.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "close test server:", err)
		}
	}
	os.Exit(code)
}

func binDir(t testing.TB) string {
	t.Helper()
	if shared.binDir == "" {
		dir, err := localpg.Find(t.Context(), "", os.Getenv("FIRN_TEST_PG"))
		if err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("find Postgres: %v", err)
			}
			t.Skipf("no Postgres: %v", err)
		}
		shared.binDir = dir
	}
	return shared.binDir
}

func sharedServer(t testing.TB) *localpg.Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.srv == nil {
		srv, err := localpg.Start(context.Background(), localpg.Options{BinDir: binDir(t), Settings: map[string]string{"max_replication_slots": "60", "max_wal_senders": "60", "max_connections": "200", "autovacuum": "off"}})
		require.NoError(t, err)
		shared.srv = srv
	}
	return shared.srv
}

// ownServer is for tests that stop it or need settings.
func ownServer(t testing.TB, o localpg.Options) *localpg.Server {
	t.Helper()
	shared.Lock()
	o.BinDir = binDir(t)
	shared.Unlock()
	srv, err := localpg.Start(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	return srv
}

var databases atomic.Int64

// newDatabase makes an empty database and returns its URL and a connection.
func newDatabase(t testing.TB, srv *localpg.Server) (string, *pgx.Conn) {
	t.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	admin := dial(t, srv.URL("postgres"))
	mustExec(t, admin, "CREATE DATABASE "+name)
	url := srv.URL(name)
	return url, dial(t, url)
}

func dial(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(context.Background(), url)
	require.NoError(t, err)
	t.Cleanup(func() { closeConn(c) })
	return c
}

func mustExec(t testing.TB, c *pgx.Conn, sql string) {
	t.Helper()
	require.NoError(t, c.PgConn().Exec(context.Background(), sql).Close(), sql)
}

func open(t testing.TB, url string) *Source {
	t.Helper()
	return openWith(t, Options{URL: url})
}

func openWith(t testing.TB, o Options) *Source {
	t.Helper()
	if o.Slot == "" {
		// Slot names are the cluster's, not the database's.
		o.Slot = fmt.Sprintf("firn_%d", databases.Add(1))
	}
	if o.Publication == "" {
		o.Publication = "firn"
	}
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func names(list ...string) []TableName {
	var out []TableName
	for _, n := range list {
		schema, name, _ := strings.Cut(n, ".")
		out = append(out, TableName{Schema: schema, Name: name})
	}
	return out
}

func describe(t testing.TB, s *Source, name string) *Table {
	t.Helper()
	ts, err := s.Tables(t.Context(), []string{name})
	require.NoError(t, err)
	require.Len(t, ts, 1, name)
	return &ts[0]
}

// published makes a publication and a slot that lives until the test's end, and
// returns its consistent point.
func published(t testing.TB, s *Source, tables ...string) wal.LSN {
	t.Helper()
	_, _, err := s.SyncPublication(t.Context(), names(tables...))
	require.NoError(t, err)
	sn, err := s.CreateSlot(t.Context(), s.o.Slot, false, names(tables...), LockOptions{})
	require.NoError(t, err)
	sn.Close()
	t.Cleanup(func() {
		s2, err := Open(context.Background(), s.o)
		if err == nil {
			defer s2.Close()
			err = s2.DropSlot(context.Background(), s.o.Slot)
		}
		if err != nil {
			t.Logf("drop slot: %v", err)
		}
	})
	return sn.ConsistentPoint
}

// follower runs a stream and collects what it brings.
type follower struct {
	st     *Stream
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run, after done

	mu        sync.Mutex
	inserts   []string // first column of each inserted row, committed or not
	commits   []wal.LSN
	lastEnd   wal.LSN
	asked     int
	autoAck   atomic.Bool
	kinds     map[byte]int
	walEndMax wal.LSN
}

func follow(t testing.TB, s *Source, start wal.LSN, o StreamOptions) *follower {
	t.Helper()
	st, err := s.StartStream(t.Context(), start, o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{st: st, cancel: cancel, done: make(chan struct{}), kinds: make(map[byte]int)}
	collected := make(chan error, 1)
	go func() { collected <- f.collect() }()
	go func() {
		f.err = st.Run(ctx)
		if err := <-collected; err != nil {
			f.err = err
		}
		close(f.done)
	}()
	t.Cleanup(f.stop)
	return f
}

func (f *follower) stop() {
	f.cancel()
	<-f.done
}

func (f *follower) collect() error {
	var d wal.Decoder
	for b := range f.st.Batches() {
		for {
			m, ok, err := b.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if err := f.take(&d, m); err != nil {
				return err
			}
		}
		b.Release()
	}
	return nil
}

func (f *follower) take(d *wal.Decoder, m wal.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.walEndMax = max(f.walEndMax, m.WALEnd)
	if m.Data == nil {
		if m.Reply {
			f.asked++
		}
		if f.autoAck.Load() {
			f.st.Ack(m.WALEnd)
		}
		return nil
	}
	f.kinds[m.Data[0]]++
	if _, err := d.Decode(m.Data); err != nil {
		return err
	}
	switch m.Data[0] {
	case 'I':
		f.inserts = append(f.inserts, string(d.New[0].Data))
	case 'C':
		f.commits = append(f.commits, d.Commit.LSN)
		f.lastEnd = d.Commit.EndLSN
	}
	return nil
}

func (f *follower) rows() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.inserts...)
}

func (f *follower) end() wal.LSN {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lastEnd
}

// waitCommits waits for the commits, which may come a read later than their rows.
func (f *follower) waitCommits(t testing.TB, n int) {
	t.Helper()
	require.Eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.commits) >= n }, 10*time.Second, 5*time.Millisecond)
}

func (f *follower) waitRows(t testing.TB, want ...string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(f.rows()) >= len(want) }, 20*time.Second, 5*time.Millisecond)
	require.Equal(t, want, f.rows())
}

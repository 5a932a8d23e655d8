package torture

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// A message that nobody reads until it is needed has to be right then.
func TestWaits(t *testing.T) {
	url := laketest.Postgres(t, "").URL("postgres")
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close(context.Background()) })
		return conn
	}
	reader, writer := connect(), connect()
	for _, sql := range []string{"create table book (n int)", "begin", "lock table book in access share mode"} {
		_, err := reader.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	done := make(chan error, 1)
	go func() { _, err := writer.Exec(t.Context(), "truncate   book"); done <- err }()
	require.Eventually(t, func() bool {
		said := waits(url)
		return strings.Contains(said, "idle in transaction") && strings.Contains(said, "has AccessShareLock on book: lock table book") &&
			strings.Contains(said, fmt.Sprintf("wants AccessExclusiveLock on book, blocked by %d: truncate book", reader.PgConn().PID()))
	}, 10*time.Second, 50*time.Millisecond)
	_, err := reader.Exec(t.Context(), "rollback")
	require.NoError(t, err)
	require.NoError(t, <-done)
}

// What failed is said once more in the cleanup that runs last.
func TestTold(t *testing.T) {
	inner := &recorder{TB: t}
	w := tell(inner, "go test -torture.seed 7")
	w.step("failpoint %s", "in-load:1")
	assert.Equal(w, 1, 2, "rows of %s", "book.keyed")
	for range 5 {
		w.Errorf("%s", strings.Repeat("log\n", 1000))
	}
	require.Len(t, inner.cleanups, 1)
	inner.cleanups[0]()
	for _, want := range []string{"-torture.seed 7", `in the step "failpoint in-load:1"`, "expected: 1", "rows of book.keyed", "and 3 more", "lines, above"} {
		require.Contains(t, inner.logged, want)
	}
	require.Less(t, strings.Count(inner.logged, "\n"), 100)
}

// recorder is a test that fails without failing t.
type recorder struct {
	testing.TB
	failed   bool
	cleanups []func()
	logged   string
}

func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) Failed() bool          { return r.failed }
func (r *recorder) Cleanup(f func())      { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Log(args ...any)       { r.logged += fmt.Sprintln(args...) }

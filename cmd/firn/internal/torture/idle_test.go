package torture

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

var idleFlag = flag.Duration("torture.idle", 0, "how long TestIdleBesideBusyDatabase stays idle; 0: it is skipped")

// TestIdleBesideBusyDatabase is wire's TestRule02Idle in earnest: the built
// binary with its defaults, idle for minutes beside a busy database of the same
// cluster. The slot must have advanced, never past the lake, and restarts after
// an orderly end and after a kill must find nothing to refuse.
func TestIdleBesideBusyDatabase(t *testing.T) {
	laketest.Short(t, "no idle minutes")
	if *idleFlag == 0 {
		t.Skip("set -torture.idle 5m to run it; wire's TestRule02Idle is its short form")
	}
	pg := laketest.Postgres(t, "")
	admin, err := pgx.Connect(t.Context(), pg.URL("postgres"))
	require.NoError(t, err)
	defer admin.Close(context.WithoutCancel(t.Context()))
	for _, sql := range []string{"create database busy", "create table quiet (id int primary key)", "insert into quiet values (1)"} {
		_, err := admin.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	f := newFirn(t, pg.URL("postgres"), laketest.MinIO(t), "{}\n")
	f.start("")
	f.ready(time.Minute)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	busy := make(chan error, 1)
	go func() { busy <- keepBusy(ctx, pg.URL("busy")) }()
	var slot string
	require.NoError(t, admin.QueryRow(t.Context(), "select slot_name from pg_replication_slots").Scan(&slot))
	lag := func() (confirmed string, behind, written int64) {
		t.Helper()
		require.NoError(t, admin.QueryRow(t.Context(), `select confirmed_flush_lsn::text, pg_current_wal_lsn() - confirmed_flush_lsn,
			pg_current_wal_lsn() - '0/0'::pg_lsn from pg_replication_slots where slot_name = $1`, slot).Scan(&confirmed, &behind, &written))
		return confirmed, behind, written
	}
	first, _, before := lag()
	worst := int64(0)
	for until := time.Now().Add(*idleFlag); time.Now().Before(until); time.Sleep(time.Second) {
		f.alive()
		_, behind, _ := lag()
		worst = max(worst, behind)
	}
	last, behind, after := lag()
	require.NotEqual(t, first, last, "the slot has not advanced")
	t.Logf("idle for %s beside %.1f MB of WAL: the slot went from %s to %s, %.1f MB behind at the end, %.1f MB at most",
		*idleFlag, float64(after-before)/1e6, first, last, float64(behind)/1e6, float64(worst)/1e6)

	require.NoError(t, f.cmd.Process.Signal(syscall.SIGTERM))
	<-f.done
	require.NoError(t, f.err, "%s", f.output())
	time.Sleep(time.Second) // the other database writes on
	f.start("")
	f.ready(time.Minute)
	f.kill()
	f.start("")
	f.ready(time.Minute)
	_, err = admin.Exec(t.Context(), "insert into quiet values (2)")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		f.alive()
		s, err := f.status()
		return err == nil && len(s.Tables) == 1 && s.Tables[0].Rows == 2
	}, 30*time.Second, 100*time.Millisecond)
	require.Equal(t, http.StatusOK, statusOf(t, f.url+"/readyz"))
	stop()
	require.NoError(t, <-busy)
}

// keepBusy writes about a megabyte of WAL a second until ctx ends.
func keepBusy(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the busy database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "create table noise (id bigserial primary key, v text)"); err != nil {
		return fmt.Errorf("make the busy table: %w", err)
	}
	for ctx.Err() == nil {
		if _, err := conn.Exec(ctx, "insert into noise (v) select repeat(md5(i::text), 10) from generate_series(1, 200) i"); err != nil && ctx.Err() == nil {
			return fmt.Errorf("keep the other database busy: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

func statusOf(t *testing.T, url string) int {
	t.Helper()
	r, err := http.Get(url)
	require.NoError(t, err)
	r.Body.Close()
	return r.StatusCode
}

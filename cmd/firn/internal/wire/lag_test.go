package wire_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLagOfAServerThatIsSlowToSend: what Postgres has not sent yet is missing
// from the lake, and firn says so although the stream is silent.
func TestLagOfAServerThatIsSlowToSend(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.Freshness = 20 * time.Millisecond
	r.exec("create table a (id int primary key)")
	e, stop := r.run()
	r.exec("insert into a values (0)")
	r.same(e, "public.a")
	var pid int
	require.NoError(t, r.conn.QueryRow(t.Context(), "select active_pid from pg_replication_slots where slot_name = 'firn_shop'").Scan(&pid))
	began := time.Now()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }() // it may be gone
	r.exec("insert into a select generate_series(1, 100000)")
	require.Eventually(t, func() bool {
		st := e.Lake.Status()
		return st.LagBytes > 5<<20 && st.Freshness > 2 && st.ServerLSN-st.DurableLSN > 5<<20
	}, 20*time.Second, 10*time.Millisecond)
	require.LessOrEqual(t, e.Lake.Status().Freshness, time.Since(began).Seconds()+0.1)
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	r.same(e, "public.a")
	require.Eventually(t, func() bool {
		st := e.Lake.Status()
		return st.LagBytes == 0 && st.Freshness == 0
	}, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, stop())
}

// TestLagOfAnIdleServer: a server that begins a page of WAL, or a file, without
// a record in it has nothing that we lack.
func TestLagOfAnIdleServer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.o.Freshness = 20 * time.Millisecond
	r.exec("create table a (id int primary key)")
	e, stop := r.run()
	for range 3 {
		r.exec("insert into a select 1 + coalesce(max(id), 0) from a")
		r.same(e, "public.a")
		r.exec("select pg_switch_wal()")
		require.Eventually(t, func() bool {
			st := e.Lake.Status()
			return st.LagBytes == 0 && st.Freshness == 0
		}, 5*time.Second, 10*time.Millisecond)
		time.Sleep(500 * time.Millisecond) // looks, and asks
		require.Zero(t, e.Lake.Status().LagBytes)
	}
	require.NoError(t, stop())
}

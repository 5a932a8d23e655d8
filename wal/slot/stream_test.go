package slot

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/wal"
	"firn/wal/localpg"
)

func (s *Source) confirmed(t testing.TB) wal.LSN {
	t.Helper()
	st, err := s.Slot(t.Context())
	require.NoError(t, err)
	require.NotNil(t, st)
	return st.ConfirmedFlush
}

func TestStreamBringsCommits(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY, x text); CREATE TABLE unlisted (id int)")
	s := open(t, url)
	start := published(t, s, "public.t")
	f := follow(t, s, start, StreamOptions{Streaming: true})
	mustExec(t, c, "INSERT INTO t VALUES (1)")
	mustExec(t, c, "INSERT INTO unlisted VALUES (1)")
	mustExec(t, c, "BEGIN; INSERT INTO t VALUES (2); ROLLBACK")
	mustExec(t, c, "INSERT INTO t VALUES (3, repeat('x', 5000000))")
	f.waitRows(t, "1", "3")
	require.GreaterOrEqual(t, f.st.Received(), f.end())

	begin := time.Now()
	mustExec(t, c, "INSERT INTO t VALUES (4)")
	f.waitRows(t, "1", "3", "4")
	require.Less(t, time.Since(begin), time.Second, "laziness adds no latency to an idle stream")
	require.Equal(t, start, s.confirmed(t), "nothing is acknowledged that the consumer didn't")
	f.stop()
	require.ErrorIs(t, f.err, context.Canceled)
}

func TestStreamingSendsOpenTransactions(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY, x text)")
	mustExec(t, c, "ALTER SYSTEM SET logical_decoding_work_mem = '64kB'")
	defer mustExec(t, c, "ALTER SYSTEM RESET logical_decoding_work_mem")
	mustExec(t, c, "SELECT pg_reload_conf()")
	s := open(t, url)
	f := follow(t, s, published(t, s, "public.t"), StreamOptions{Streaming: true})
	mustExec(t, c, "BEGIN; INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i")
	require.Eventually(t, func() bool { return len(f.rows()) > 0 }, 10*time.Second, 10*time.Millisecond)
	mustExec(t, c, "COMMIT")
	require.Eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.kinds['c'] == 1 }, 10*time.Second, 10*time.Millisecond)
	f.stop()
	require.Len(t, f.rows(), 5000)
	require.ErrorIs(t, f.err, context.Canceled)
}

// Rule 1's other half, and what the slot does with an acknowledgement: that of a
// commit's end keeps it from coming again, that of its start does not.
func TestRule01AcknowledgedIsNotSentAgain(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY)")
	s := open(t, url)
	f := follow(t, s, published(t, s, "public.t"), StreamOptions{})
	mustExec(t, c, "INSERT INTO t VALUES (1)")
	f.waitRows(t, "1")
	f.waitCommits(t, 1)
	first := f.end()
	f.st.Ack(first)
	require.Eventually(t, func() bool { return s.confirmed(t) == first }, 5*time.Second, 10*time.Millisecond, "sent soon, without being asked")
	mustExec(t, c, "INSERT INTO t VALUES (2)")
	f.waitRows(t, "1", "2")
	f.waitCommits(t, 2)
	f.mu.Lock()
	second, secondEnd := f.commits[1], f.lastEnd
	f.mu.Unlock()
	f.st.Ack(second)
	f.stop()
	require.Eventually(t, func() bool { return s.confirmed(t) == second }, 5*time.Second, 10*time.Millisecond, "the last one is sent before the end")

	f = follow(t, s, second, StreamOptions{})
	f.waitRows(t, "2")
	f.st.Ack(secondEnd)
	f.stop()
	f = follow(t, s, secondEnd, StreamOptions{})
	mustExec(t, c, "INSERT INTO t VALUES (3)")
	f.waitRows(t, "3")
	f.stop()

	// Started behind the slot, Postgres goes on from where the slot is.
	f = follow(t, s, 1, StreamOptions{})
	f.waitRows(t, "3")
	require.GreaterOrEqual(t, s.confirmed(t), secondEnd)
	f.st.Ack(1 << 62)
	require.LessOrEqual(t, f.st.Acked(), f.st.Received())
}

// Rule 2: only what the consumer acknowledges moves the slot; keepalives of an
// idle stream don't. With them acknowledged the slot follows other tables' WAL.
func TestRule02IdleSlotMovesOnlyByAck(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE unlisted (id int)")
	s := open(t, url)
	start := published(t, s, "public.t")
	f := follow(t, s, start, StreamOptions{})
	mustExec(t, c, "INSERT INTO unlisted SELECT generate_series(1, 20000)")
	end, err := s.InsertLSN(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.st.Received() >= end }, 30*time.Second, 10*time.Millisecond)
	time.Sleep(3 * answerGap)
	require.Equal(t, start, s.confirmed(t))
	f.st.Ack(f.st.Received())
	require.Eventually(t, func() bool { return s.confirmed(t) >= end }, 5*time.Second, 10*time.Millisecond)
}

// wal_sender_timeout strikes a client that doesn't answer, even while the
// walsender is blocked on a full socket.
func TestKeepalivesWhileTheConsumerStands(t *testing.T) {
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	srv := ownServer(t, localpg.Options{Settings: map[string]string{"wal_sender_timeout": "1s"}})
	url, c := newDatabase(t, srv)
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY, x text)")
	s := openWith(t, Options{URL: url, Batches: 2})
	st, err := s.StartStream(t.Context(), published(t, s, "public.t"), StreamOptions{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	mustExec(t, c, "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 30000) i")
	select {
	case err := <-done:
		t.Fatalf("the stream ended: %v", err)
	case <-time.After(4 * time.Second):
	}
	// The consumer wakes up and takes it all.
	n := 0
	deadline := time.After(30 * time.Second)
	for n < 30000 {
		select {
		case b, ok := <-st.Batches():
			require.True(t, ok)
			for {
				m, ok, err := b.Next()
				require.NoError(t, err)
				if !ok {
					break
				}
				if len(m.Data) > 0 && m.Data[0] == 'I' {
					n++
				}
			}
			b.Release()
		case <-deadline:
			t.Fatalf("%d rows", n)
		}
	}
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

func TestRule07SlotInUseIsWaitedForAndNotDisturbed(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY)")
	s := openWith(t, Options{URL: url, SlotWait: 700 * time.Millisecond})
	start := published(t, s, "public.t")
	f := follow(t, s, start, StreamOptions{})
	begin := time.Now()
	_, err := s.StartStream(t.Context(), start, StreamOptions{})
	require.ErrorIs(t, err, ErrSlotInUse)
	require.GreaterOrEqual(t, time.Since(begin), 700*time.Millisecond)
	mustExec(t, c, "INSERT INTO t VALUES (1)")
	f.waitRows(t, "1")
	go func() { time.Sleep(200 * time.Millisecond); f.cancel() }()
	g := follow(t, s, start, StreamOptions{})
	g.waitRows(t, "1")
}

func TestStreamRefusals(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY)")
	s := open(t, url)
	ctx := t.Context()
	_, err := s.StartStream(ctx, 1, StreamOptions{})
	require.ErrorIs(t, err, ErrPublicationMissing)
	_, _, err = s.SyncPublication(ctx, names("public.t"))
	require.NoError(t, err)
	_, err = s.StartStream(ctx, 1, StreamOptions{})
	require.ErrorIs(t, err, ErrSlotMissing)
	mustExec(t, c, "SELECT pg_create_logical_replication_slot('"+s.o.Slot+"', 'pgoutput', false, true)")
	_, err = s.StartStream(ctx, 1, StreamOptions{})
	require.ErrorIs(t, err, ErrSlotUnfit)
	require.NoError(t, s.DropSlot(ctx, s.o.Slot))
	mustExec(t, c, "SELECT pg_create_physical_replication_slot('"+s.o.Slot+"')")
	_, err = s.StartStream(ctx, 1, StreamOptions{})
	require.ErrorIs(t, err, ErrSlotUnfit)
	require.NoError(t, s.DropSlot(ctx, s.o.Slot))
}

func TestPublicationDroppedUnderTheStream(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY)")
	s := open(t, url)
	if v, err := s.Version(t.Context()); err != nil || v >= 180000 {
		t.Skip("from version 18 the server only warns")
	}
	f := follow(t, s, published(t, s, "public.t"), StreamOptions{})
	require.NoError(t, s.DropPublication(t.Context()))
	mustExec(t, c, "INSERT INTO t VALUES (1)")
	<-f.done
	require.ErrorIs(t, f.err, ErrPublicationMissing)
}

func TestSlotLost(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 60 MB")
	}
	srv := ownServer(t, localpg.Options{Settings: map[string]string{"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}})
	url, c := newDatabase(t, srv)
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE filler (x text)")
	s := open(t, url)
	start := published(t, s, "public.t")
	r, err := s.RetainedWAL(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(1<<20), r.LimitBytes)
	require.Positive(t, r.SafeBytes)
	st, err := s.StartStream(t.Context(), start, StreamOptions{})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- st.Run(t.Context()) }()
	for range 6 {
		mustExec(t, c, "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 10000)")
		mustExec(t, c, "SELECT pg_switch_wal()")
		mustExec(t, c, "CHECKPOINT")
	}
	select {
	case err := <-done:
		require.ErrorIs(t, err, ErrSlotLost)
		t.Log(err)
	case <-time.After(20 * time.Second):
		t.Fatal("the stream goes on")
	}
	state, err := s.Slot(t.Context())
	require.NoError(t, err)
	reason, lost := state.Lost()
	require.True(t, lost)
	require.NotEmpty(t, reason)
	_, err = s.StartStream(t.Context(), start, StreamOptions{})
	require.ErrorIs(t, err, ErrSlotLost)
}

func TestStreamSurvivesTheLossOfItsWatch(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY)")
	s := open(t, url)
	f := follow(t, s, published(t, s, "public.t"), StreamOptions{})
	time.Sleep(100 * time.Millisecond)
	mustExec(t, c, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'")
	time.Sleep(100 * time.Millisecond)
	mustExec(t, c, "INSERT INTO t VALUES (1)")
	f.waitRows(t, "1")
}

func TestPostgresKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts its own server")
	}
	srv := ownServer(t, localpg.Options{Fsync: true})
	url, c := newDatabase(t, srv)
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY)")
	s := open(t, url)
	start := published(t, s, "public.t")
	f := follow(t, s, start, StreamOptions{})
	mustExec(t, c, "INSERT INTO t VALUES (1)")
	f.waitRows(t, "1")
	require.NoError(t, srv.Kill())
	<-f.done
	require.ErrorIs(t, f.err, ErrUnreachable)
	_, err := s.StartStream(t.Context(), start, StreamOptions{})
	require.ErrorIs(t, err, ErrUnreachable)
	require.NoError(t, srv.Restart(t.Context()))
	f = follow(t, s, start, StreamOptions{})
	f.waitRows(t, "1")
}

// Rule 29 as it was seen: a fast shutdown with WAL that the consumer has not made
// durable waits for its client for ever.
func TestRule29PostgresCanShutDown(t *testing.T) {
	srv := ownServer(t, localpg.Options{StopTimeout: time.Minute})
	url, c := newDatabase(t, srv)
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY)")
	s := open(t, url)
	start := published(t, s, "public.t")
	f := follow(t, s, start, StreamOptions{})
	mustExec(t, c, "INSERT INTO t SELECT generate_series(1, 1000)")
	require.Eventually(t, func() bool { return len(f.rows()) == 1000 }, 10*time.Second, 10*time.Millisecond)
	begin := time.Now()
	require.NoError(t, srv.Stop(t.Context()))
	require.Less(t, time.Since(begin), 5*time.Second)
	t.Logf("pg_ctl stop -m fast took %s", time.Since(begin))
	<-f.done
	require.ErrorIs(t, f.err, ErrShutdown)
	require.Less(t, f.asked, 30, "each answer brings the next question")
	require.NoError(t, srv.Restart(t.Context()))
	f = follow(t, s, start, StreamOptions{})
	require.Eventually(t, func() bool { return len(f.rows()) == 1000 }, 10*time.Second, 10*time.Millisecond, "what was not acknowledged comes again")
}

// The same when the consumer doesn't even read.
func TestRule29PostgresCanShutDownThoughNobodyReads(t *testing.T) {
	if testing.Short() {
		t.Skip("starts its own server")
	}
	srv := ownServer(t, localpg.Options{StopTimeout: time.Minute})
	url, c := newDatabase(t, srv)
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY, x text)")
	s := openWith(t, Options{URL: url, Batches: 2})
	st, err := s.StartStream(t.Context(), published(t, s, "public.t"), StreamOptions{})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- st.Run(t.Context()) }()
	mustExec(t, c, "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
	time.Sleep(500 * time.Millisecond)
	begin := time.Now()
	require.NoError(t, srv.Stop(t.Context()))
	require.Less(t, time.Since(begin), 5*time.Second)
	require.ErrorIs(t, <-done, ErrShutdown)
}

// Rule 29's last resort: where no ordinary connection tells, a walsender that
// keeps asking while nothing gets durable is dropped after ten seconds, and is
// answered ten times a second at most until then.
func TestRule29AnswersAreFewAndEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	client, server := tcpPair(t)
	s := &Source{o: Options{Batches: 4}}
	st := newStream(s, &wire{Conn: client, lazy: &lazyConn{}}, 5, 0)
	answers := 0
	go func() {
		buf := make([]byte, 39)
		for {
			if _, err := server.Write(keepalive(10, 1)); err != nil {
				return
			}
			if _, err := io.ReadFull(server, buf); err != nil {
				return
			}
			answers++
		}
	}()
	go func() {
		for b := range st.batches {
			b.Release()
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	r := &reader{st: st}
	read := make(chan error, 1)
	go func() { read <- r.run(ctx) }()
	begin := time.Now()
	err := st.answer(ctx)
	require.ErrorIs(t, err, ErrShutdown)
	took := time.Since(begin)
	require.GreaterOrEqual(t, took, stuckLimit-2*time.Second)
	require.Less(t, took, stuckLimit+20*time.Second, "it may be late on a busy machine, but it ends")
	cancel()
	require.NoError(t, client.Close())
	<-read
	close(st.batches)
	require.LessOrEqual(t, answers, int(took/answerGap)+2)
	require.Greater(t, answers, 50)
}

// Throughput against pg_recvlogical, the server's own client: the stream must
// not be slower than a program that does nothing else.
func TestThroughput(t *testing.T) {
	rows := 200_000
	if testing.Short() {
		rows = 20_000
	}
	srv := ownServer(t, localpg.Options{})
	url, c := newDatabase(t, srv)
	s := open(t, url)
	start := fill(t, s, c, rows)
	for range 2 {
		d, cpu := drain(t, s, start, rows)
		t.Logf("stream: %d rows in %.2f s: %.0f rows/s, %.2f s of CPU per million", rows, d.Seconds(), float64(rows)/d.Seconds(), cpu.Seconds()*1e6/float64(rows))
	}
	recv := filepath.Join(binDir(t), "pg_recvlogical")
	if _, err := exec.LookPath(recv); err != nil {
		t.Logf("no pg_recvlogical to compare with: %v", err)
		return
	}
	end, err := s.InsertLSN(t.Context())
	require.NoError(t, err)
	cmd := exec.Command(recv, "-d", url, "-S", s.o.Slot, "--start", "-o", "proto_version=1", "-o", "publication_names=firn", "-E", end.String(), "--no-loop", "-F", "0", "-s", "0", "-f", "/dev/null")
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	d := time.Since(begin)
	t.Logf("pg_recvlogical: %.2f s: %.0f rows/s, %.2f s of CPU per million", d.Seconds(), float64(rows)/d.Seconds(),
		(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()).Seconds()*1e6/float64(rows))
}

// fill inserts ten-column rows in transactions of 1,000 after making a slot.
func fill(t testing.TB, s *Source, c *pgx.Conn, rows int) wal.LSN {
	t.Helper()
	mustExec(t, c, `CREATE TABLE wide (id bigint PRIMARY KEY, a int, b int, c bigint, d float8, e numeric(12,2), f timestamptz, g text, h text, i boolean)`)
	start := published(t, s, "public.wide")
	for n := 0; n < rows; n += 1000 {
		mustExec(t, c, fmt.Sprintf(`INSERT INTO wide SELECT i, i, i %% 100, i * 7, i / 3.0, i / 100.0, now(), 'customer ' || i, md5(i::text), i %% 2 = 0 FROM generate_series(%d, %d) i`, n, n+999))
	}
	return start
}

func drain(t testing.TB, s *Source, start wal.LSN, rows int) (time.Duration, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := cpuTime(t)
	begin := time.Now()
	st, err := s.StartStream(ctx, start, StreamOptions{})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	var d wal.Decoder
	n, batches := 0, 0
	for b := range st.Batches() {
		batches++
		for {
			m, ok, err := b.Next()
			require.NoError(t, err)
			if !ok {
				break
			}
			if m.Data == nil {
				continue
			}
			if _, err := d.Decode(m.Data); err != nil {
				t.Fatal(err)
			}
			if m.Data[0] == 'I' {
				n++
			}
		}
		b.Release()
		if n == rows {
			break
		}
	}
	took, cpu := time.Since(begin), cpuTime(t)-before
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.Equal(t, rows, n)
	t.Logf("%d batches", batches)
	return took, cpu
}

func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func tcpPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	client, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

package wire_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/cmd/firn/internal/wire"
	"firn/lake"
	"firn/lake/audit"
	"firn/lake/laketest"
	"firn/lake/object"
	"firn/wal"
)

// faulty is a rig under random traffic whose mirror is run again after every
// outage, as firn run does.
type faulty struct {
	*rig
	e      *wire.Engine
	load   *laketest.Workload
	cancel context.CancelFunc
	done   sync.WaitGroup
	calm   func() // ends the traffic

	outages atomic.Int64
}

// newFaulty makes the tables and starts traffic and mirror; store may put
// something between the mirror and its store, r may have been set up already.
func newFaulty(r *rig, store func(object.Store) object.Store) *faulty {
	t := r.t
	f := &faulty{rig: r, load: &laketest.Workload{URL: r.url, Seed: 11, Writers: 2}}
	require.NoError(t, f.load.Setup(t.Context()))
	st, err := object.Open(t.Context(), r.o.Warehouse, r.o.Object)
	require.NoError(t, err)
	object.RegisterFileIO(r.o.Object)
	if store != nil {
		st = store(st)
	}
	log, err := catalog.OpenLog(t.Context(), st, catalog.LogOptions{Logger: r.o.Logger})
	require.NoError(t, err)
	f.e, err = wire.Connect(t.Context(), r.o, st, log)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	f.cancel = cancel
	f.done.Go(func() { f.follow(ctx) })
	t.Cleanup(f.stop)
	f.caughtUp(f.e)

	traffic, calm := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.load.Run(traffic) }()
	f.calm = sync.OnceFunc(func() {
		calm()
		require.NoError(t, <-ended)
	})
	t.Cleanup(calm)
	return f
}

// follow runs the mirror until ctx ends. What ends a session must be an outage.
func (f *faulty) follow(ctx context.Context) {
	for {
		err := f.e.Lake.Run(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		var refusal *lake.Refusal
		switch {
		case errors.As(err, &refusal):
			// A walsender that doesn't know yet that its client is gone.
			if refusal.Code != lake.CodeFenced || !strings.Contains(err.Error(), "slot is in use") {
				f.t.Errorf("the mirror refuses: %v", err)
				return
			}
		case errors.Is(err, laketest.ErrSlowDown), errors.Is(err, laketest.ErrLost):
		case !wire.Outage(err):
			f.t.Errorf("firn run would end with: %v", err)
			return
		}
		f.t.Logf("outage: %v", err)
		f.outages.Add(1)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

func (f *faulty) stop() {
	f.cancel()
	f.done.Wait()
	f.e.Close()
}

// progress waits until the lake has what Postgres has now, a new row included.
func (f *faulty) progress() {
	f.t.Helper()
	f.exec("insert into torture.ledger values (nextval('torture.seq'), 99)")
	var text string
	require.NoError(f.t, f.conn.QueryRow(f.t.Context(), "select pg_current_wal_lsn()::text").Scan(&text))
	at, err := wal.ParseLSN(text)
	require.NoError(f.t, err)
	ctx, cancel := context.WithTimeout(f.t.Context(), 90*time.Second)
	defer cancel()
	_, err = f.e.Lake.Wait(ctx, at)
	require.NoError(f.t, err)
}

// exact ends the traffic and wants the lake to equal Postgres.
func (f *faulty) exact() {
	f.t.Helper()
	f.calm()
	f.exec("insert into torture.evo (id) values (-1)") // a change of the schema comes with the next row
	f.progress()
	f.settled(f.e)
	report := f.verify(f.e)
	require.Len(f.t, report.Tables, len(laketest.WorkloadTables))
	for _, x := range report.Tables {
		require.Equal(f.t, audit.Equal, x.Result, "%+v", x)
	}
}

// TestStoreFaults lets the store fail in every way while transactions come:
// nothing is lost, nothing comes twice.
func TestStoreFaults(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var store *laketest.FaultStore
	f := newFaulty(r, func(s object.Store) object.Store { store = laketest.NewFaultStore(s); return store })
	slow := 300 * time.Millisecond // a timeout, as the caller sees it
	for _, x := range []struct {
		name  string
		fault laketest.Fault
	}{
		{"503 to data", laketest.Fault{Op: laketest.OpPut, Key: "/data/", Before: laketest.ErrSlowDown}},
		{"lost answer to data", laketest.Fault{Op: laketest.OpPut, Key: "/data/", After: laketest.ErrLost}},
		{"timeout of metadata", laketest.Fault{Op: laketest.OpPut, Key: "/metadata/", Delay: slow, Before: laketest.ErrLost}},
		{"lost answer to metadata", laketest.Fault{Op: laketest.OpPut, Key: "/metadata/", After: laketest.ErrLost}},
		{"503 to the log", laketest.Fault{Op: laketest.OpPutIfAbsent, Before: laketest.ErrSlowDown}},
		{"lost answer to the log", laketest.Fault{Op: laketest.OpPutIfAbsent, After: laketest.ErrLost}},
		{"timeout of the log", laketest.Fault{Op: laketest.OpPutIfAbsent, Delay: slow, Before: laketest.ErrLost}},
		{"timeout of the log, which was written", laketest.Fault{Op: laketest.OpPutIfAbsent, Delay: slow, After: laketest.ErrLost}},
		{"no reads of the log", laketest.Fault{Op: laketest.OpGet, Key: catalog.LogPrefix, Before: laketest.ErrSlowDown}},
		{"no listings", laketest.Fault{Op: laketest.OpKeys, Before: laketest.ErrSlowDown}},
		{"no reads of data", laketest.Fault{Op: laketest.OpGetRange, Before: laketest.ErrSlowDown}},
		{"slow", laketest.Fault{Delay: 500 * time.Millisecond}},
	} {
		for _, times := range []int{1, 4} {
			var struck atomic.Int64
			x.fault.Times, x.fault.Skip = times, times-1
			must := x.fault.Op == laketest.OpPut || x.fault.Op == laketest.OpPutIfAbsent
			x.fault.Hook = func(context.Context, laketest.Call) error { struck.Add(1); return nil }
			store.Inject(x.fault)
			switch x.fault.Op {
			case laketest.OpGet, laketest.OpKeys: // only looked at when the log's outcome is unclear
				store.Inject(laketest.Fault{Op: laketest.OpPutIfAbsent, Times: 3, After: laketest.ErrLost})
			}
			for until := time.Now().Add(20 * time.Second); ; {
				f.progress()
				if struck.Load() == int64(times) || !must || time.Now().After(until) {
					break
				}
			}
			t.Logf("%s: struck %d times, %d outages so far", x.name, struck.Load(), f.outages.Load())
			if must {
				require.EqualValues(t, times, struck.Load(), x.name)
			}
			store.Clear()
		}
	}
	f.exact()
}

// TestStoreNetwork has a bad network between the mirror and a real MinIO.
func TestStoreNetwork(t *testing.T) {
	t.Parallel()
	s := laketest.MinIO(t)
	p := laketest.StartProxy(t, s.Host)
	r := newRig(t)
	r.o.Warehouse = "s3://" + s.Bucket(t) + "/shop"
	r.o.Object = object.Options{Endpoint: "http://" + p.Addr, Region: s.Region, AccessKeyID: s.AccessKey, SecretAccessKey: s.SecretKey}
	f := newFaulty(r, nil)
	rng := rand.New(rand.NewPCG(5, 5))
	for range 15 {
		p.CutAfter(1 + rng.IntN(200_000))
		time.Sleep(100 * time.Millisecond)
	}
	f.progress()
	for range 10 {
		p.Cut()
		time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
	}
	f.progress()
	p.Dribble(1)
	time.Sleep(time.Second)
	f.progress()
	p.Dribble(0)
	p.Stall(true)
	time.Sleep(2 * time.Second)
	p.Stall(false)
	f.progress()
	p.Stall(true)
	time.Sleep(500 * time.Millisecond)
	p.Cut()
	p.Stall(false)
	f.progress()
	p.Away(true)
	time.Sleep(12 * time.Second) // longer than the retries last
	p.Away(false)
	f.progress()
	require.NotZero(t, f.outages.Load(), "the store was away, and nobody minded")
	f.exact()
}

// TestPostgresRestarts restarts and kills Postgres under load.
func TestPostgresRestarts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	f := newFaulty(r, nil)
	for i := range 4 {
		time.Sleep(500 * time.Millisecond)
		if i%2 == 1 {
			require.NoError(t, r.pg.Kill())
		}
		began := time.Now()
		require.NoError(t, r.pg.Restart(t.Context()))
		t.Logf("restarted within %s", time.Since(began).Round(time.Millisecond))
		require.Less(t, time.Since(began), 8*time.Second, "Postgres could not shut down")
		r.reconnect()
		f.progress()
	}
	require.NotZero(t, f.outages.Load())
	f.exact()
}

// TestPostgresNetwork has a bad network between the mirror and Postgres.
func TestPostgresNetwork(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.exec("alter system set wal_sender_timeout = '2s'")
	r.exec("select pg_reload_conf()")
	u, err := url.Parse(r.url)
	require.NoError(t, err)
	p := laketest.StartProxy(t, u.Host)
	u.Host = p.Addr
	r.o.Postgres = u.String()
	f := newFaulty(r, nil)
	rng := rand.New(rand.NewPCG(6, 6))
	for range 8 {
		p.CutAfter(1 + rng.IntN(300_000))
		time.Sleep(200 * time.Millisecond)
	}
	f.progress()
	for range 4 {
		p.Cut()
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
	}
	f.progress()
	p.Dribble(1)
	time.Sleep(time.Second)
	p.Dribble(0)
	f.progress()
	p.Stall(true)
	time.Sleep(time.Second)
	p.Stall(false)
	f.progress()
	// Half-open: Postgres gives our walsender up after two seconds, and we are
	// never told. No load of torture.evo goes on: it would wait for its time
	// limits first.
	resume := f.load.PauseSchema()
	f.settled(f.e)
	p.Lose()
	began := time.Now()
	f.progress()
	t.Logf("a connection lost in silence was noticed and replaced within %s", time.Since(began).Round(time.Millisecond))
	resume()
	p.Away(true)
	time.Sleep(3 * time.Second)
	p.Away(false)
	f.progress()
	f.exact()
}

// TestDiskFull lets the state folder's disk fill up: while a large transaction
// is parked on it, which is then read without, and when there is no room for
// the row index either, which ends the run. It must be said, and nothing be
// lost once there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for name, room := range map[string]int{"parking": 6 << 20, "nothing goes": 0} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.o.StateDir = smallDisk(t)
			var log lockedBuffer
			r.o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			r.exec("alter system set logical_decoding_work_mem = '64kB'")
			r.exec("select pg_reload_conf()")
			r.exec("create table a (id int primary key, v text); insert into a select i, 'v' from generate_series(1, 1000) i")
			e, stop := r.run()
			r.same(e, "public.a")
			ballast := fillDisk(t, r.o.StateDir, room)
			r.exec(`begin; insert into a select i, repeat(md5(i::text), 4) from generate_series(10001, 200000) i;
				update a set v = 'u' where id % 3 = 0; delete from a where id % 7 = 0; commit`)
			said := func() bool { return strings.Contains(log.String(), "no space left on device") }
			require.Eventually(t, said, 60*time.Second, 20*time.Millisecond, "nothing was said")
			if room == 0 {
				require.Eventually(t, func() bool { return !e.Lake.Status().Running }, 60*time.Second, 20*time.Millisecond)
				require.ErrorIs(t, stop(), syscall.ENOSPC)
			} else {
				require.NoError(t, stop())
			}
			t.Log(log.String())
			require.NoError(t, os.Remove(ballast))
			require.NoError(t, syscall.Mount("tmpfs", r.o.StateDir, "tmpfs", syscall.MS_REMOUNT, "size=1g"))
			e, stop = r.run()
			r.same(e, "public.a")
			require.NoError(t, stop())
		})
	}
}

// smallDisk mounts a file system of 24 MB.
func smallDisk(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "small")
	require.NoError(t, os.Mkdir(dir, 0o700))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("a small file system can't be mounted: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fillDisk leaves that much room on a file system, and returns the file that
// takes the rest.
func fillDisk(t *testing.T, dir string, room int) string {
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	chunk := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(chunk)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	info, err := f.Stat()
	require.NoError(t, err)
	require.NoError(t, f.Truncate(info.Size()-int64(room)))
	return path
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

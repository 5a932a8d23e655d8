package wire_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
	"firn/lake/object"
)

// The ten columns that other writers were measured with.
const eventsTable = `create table events (id bigint primary key, user_id int, kind text, amount numeric(12,2), ok boolean,
	created_at timestamptz, note text, f1 float8, i1 int, tags text)`

const eventsRows = `insert into events select i, i %% 100000, 'kind' || i %% 10, (i %% 10000) / 100.0, i %% 2 = 0,
	timestamptz '2024-01-01' + i * interval '1 second', md5(i::text) || 'note', i / 3.0, i %% 1000, 'tag' || i %% 100 from generate_series(%d, %d) i`

// BenchmarkLoadAndDrain loads two million rows from Postgres into MinIO, and
// then drains a backlog of a million inserts in thousand-row transactions, each
// beside its floor in the same run: binary COPY and pg_recvlogical to /dev/null.
// It is one run, whatever b.N is asked for.
func BenchmarkLoadAndDrain(b *testing.B) {
	const loadRows, drainRows, perTxn = 2_000_000, 1_000_000, 1000
	r := newRig(b)
	s := laketest.MinIO(b)
	r.o.Warehouse = "s3://" + s.Bucket(b) + "/lake"
	r.o.Object = object.Options{Endpoint: s.Endpoint, Region: s.Region, AccessKeyID: s.AccessKey, SecretAccessKey: s.SecretKey}
	r.o.Freshness = 10 * time.Second
	r.o.Poll = 10 * time.Second
	r.exec(eventsTable)
	r.exec(fmt.Sprintf(eventsRows, 1, loadRows))
	r.exec("vacuum analyze events")
	r.exec("checkpoint")
	floor := func() time.Duration {
		return r.timed("psql", "-X", "-q", r.url, "-c", "copy events to stdout (format binary)")
	}
	before := floor()
	peak := watchMemory()
	cpu := cpuSeconds()
	began := time.Now()
	e, stop := r.run()
	r.caughtUp(e)
	load := time.Since(began)
	b.ReportMetric(loadRows/load.Seconds(), "load-rows/s")
	b.ReportMetric((cpuSeconds()-cpu)/(loadRows/1e6), "load-cpu-s/Mrows")
	require.NoError(b, stop())
	copied := (before + floor()) / 2
	b.ReportMetric(copied.Seconds()/load.Seconds(), "load-x-COPY")

	r.exec("select pg_create_logical_replication_slot('floor', 'pgoutput')")
	for at := loadRows; at < loadRows+drainRows; at += perTxn {
		r.exec(fmt.Sprintf(eventsRows, at+1, at+perTxn))
	}
	var end string
	require.NoError(b, r.conn.QueryRow(b.Context(), "select pg_current_wal_flush_lsn()::text").Scan(&end))
	received := func() time.Duration {
		return r.timed("pg_recvlogical", "-d", r.url, "-S", "floor", "--start", "--no-loop", "-f", "-", "-E", end,
			"-o", "proto_version=2", "-o", "publication_names="+r.o.Publication)
	}
	recv := received()
	cpu = cpuSeconds()
	began = time.Now()
	e, stop = r.run()
	r.caughtUp(e)
	drain := time.Since(began)
	b.ReportMetric(drainRows/drain.Seconds(), "drain-rows/s")
	b.ReportMetric((cpuSeconds()-cpu)/(drainRows/1e6), "drain-cpu-s/Mrows")
	b.ReportMetric(recv.Seconds()/drain.Seconds(), "drain-x-recvlogical")
	b.ReportMetric(float64(peak())/(1<<20), "anon-MB")
	b.Logf("load %v against COPY %v; drain %v against pg_recvlogical %v", load, copied, drain, recv)
	require.EqualValues(b, loadRows+drainRows, e.Lake.Status().Tables[0].Rows)
	require.NoError(b, stop())
}

// timed runs a program to its end with its output thrown away.
func (r *rig) timed(name string, args ...string) time.Duration {
	r.t.Helper()
	c := exec.CommandContext(r.t.Context(), name, args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	began := time.Now()
	require.NoError(r.t, c.Run(), "%s: %s", name, &stderr)
	return time.Since(began)
}

func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// watchMemory samples the process' anonymous memory; the function it returns
// gives the peak in bytes.
func watchMemory() (peak func() int64) {
	var top atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for ctx.Err() == nil {
			status, err := os.ReadFile("/proc/self/status")
			if err != nil {
				return
			}
			for line := range strings.Lines(string(status)) {
				if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
					kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
					top.Store(max(top.Load(), kb<<10))
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return func() int64 { cancel(); return top.Load() }
}

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/cmd/firn/internal/listen"
	"firn/lake"
	"firn/wal/slot"
)

func TestScreenKeepsLogAboveDrawnLines(t *testing.T) {
	var b bytes.Buffer
	s := &screen{w: &b, width: func() int { return 10 }}
	s.show("one", "a line that is too long")
	require.Equal(t, "one\na line th\n", b.String())
	b.Reset()
	s.say("log")
	require.Equal(t, "\x1b[1A\x1b[2K\x1b[1A\x1b[2K\rlog\none\na line th\n", b.String())
	b.Reset()
	s.clear()
	require.Equal(t, "\x1b[1A\x1b[2K\x1b[1A\x1b[2K\r", b.String())

	b.Reset()
	s = newScreen(&b)
	s.show("drawn")
	s.say("said")
	require.Equal(t, "said\n", b.String(), "nothing is drawn where no terminal is")
}

func TestProgress(t *testing.T) {
	p := progress{rates: map[string]*rate{}}
	now := time.Now()
	st := listen.Status{Status: lake.Status{Running: true, Epoch: 4, DurableLSN: 0x1_00000002, LagBytes: 2048, Tables: []lake.TableStatus{
		{Name: "public.big", State: lake.Loading, LoadRows: 1000, LoadTotal: 4000, LoadBytes: 1e6},
		{Name: "public.next", State: lake.Loading, LoadTotal: 10},
		{Name: "public.done", State: lake.Streaming},
		{Name: "public.bad", State: lake.Quarantined},
	}}}
	bars := p.bars(now, st)
	require.Len(t, bars, 1, "a table that waits for its turn has no bar")
	require.Equal(t, "public.big  ██████░░░░░░░░░░░░░░░░░░  25 %  1,000 of about 4,000 rows", bars[0])
	st.Tables[0].LoadRows, st.Tables[0].LoadBytes = 2000, 3e6
	bars = p.bars(now.Add(time.Second), st)
	require.Contains(t, bars[0], "50 %  2,000 of about 4,000 rows, 2.0 MB/s, ETA 2s")
	require.Equal(t, "streaming 1 table · 2 loading · 1 quarantined · 0 changes/s · lag 2.0 kB (0.0 s) · epoch 4 at 1/2", p.line(st))
	st.Tables[0].LoadRows = 9999
	require.InDelta(t, 0.99, share(st.Tables[0]), 1e-9, "an estimate never says all")
	require.Equal(t, "interrupted: gone", p.line(listen.Status{Outage: "gone"}))
	require.Equal(t, "starting", p.line(listen.Status{}))

	var many listen.Status
	for range barsMax + 3 {
		many.Tables = append(many.Tables, lake.TableStatus{Name: "t", State: lake.Behind, LoadRows: 1})
	}
	bars = p.bars(now, many)
	require.Len(t, bars, barsMax+1)
	require.Equal(t, "and 3 more", bars[barsMax])
}

func TestPlainLinesOnlyWhenSomethingHappened(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b)
	p := progress{rates: map[string]*rate{}}
	now := time.Now()
	lines := func(after time.Duration, st listen.Status) int {
		b.Reset()
		p.plain(s, now.Add(after), st)
		return strings.Count(b.String(), "\n")
	}
	st := listen.Status{Status: lake.Status{Running: true, Epoch: 1}}
	require.Equal(t, 1, lines(0, st))
	require.Zero(t, lines(time.Hour, st), "nothing happened")
	st.Epoch = 2
	require.Zero(t, lines(time.Second, st), "too soon")
	require.Equal(t, 1, lines(time.Minute, st))
	st.Outage = "gone"
	require.Equal(t, 1, lines(time.Minute, st), "an outage is said at once")
	st.Tables = []lake.TableStatus{{Name: "a", State: lake.Loading, LoadRows: 1}, {Name: "b", State: lake.Loading}}
	require.Equal(t, 1, lines(time.Minute, st))
	require.Contains(t, b.String(), "firn: loading a: 1 rows")
}

func TestRetainedWALIsWarnedOf(t *testing.T) {
	require.EqualValues(t, 10<<30, warnAt(slot.Retained{LimitBytes: -1}))
	require.EqualValues(t, 2<<30, warnAt(slot.Retained{LimitBytes: 4 << 30}))
	require.EqualValues(t, 10<<30, recommendKeep(1<<30))
	require.EqualValues(t, 160<<30, recommendKeep(16<<30))
}

func TestFailpoint(t *testing.T) {
	fn, err := failpoint("")
	require.NoError(t, err)
	require.Nil(t, fn)
	for _, spec := range []string{"nowhere", "before-ack:0", "before-ack:x", "before-ack:"} {
		_, err := failpoint(spec)
		code, text := explain(err)
		require.Equal(t, exitUsage, code)
		require.Contains(t, text, "FIRN_FAILPOINT: want")
	}
	fn, err = failpoint("before-ack:2")
	require.NoError(t, err)
	fn("before-ack") // the first of two
	fn("after-upload")
}

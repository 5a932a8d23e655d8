package listen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
	"firn/wal"
)

// still is a lake at one LSN.
type still struct {
	at     wal.LSN
	starts atomic.Int64 // sessions that end before they answer
}

func (s *still) Wait(ctx context.Context, lsn wal.LSN) (wal.LSN, error) {
	if s.starts.Add(-1) >= 0 {
		return 0, errors.New("start again from the head")
	}
	if lsn <= s.at {
		return s.at, nil
	}
	<-ctx.Done()
	return 0, ctx.Err()
}
func (s *still) Hold(context.Context) error { return nil }
func (s *still) Cut(_ context.Context, lsn wal.LSN) (wal.LSN, uint64, error) {
	if lsn < s.at {
		return 0, 0, errors.New("the lake is past that LSN already")
	}
	return lsn, 7, nil
}
func (s *still) Backlog(_ context.Context, tables []string) (lake.Backlog, error) {
	out := lake.Backlog{Rewrites: []lake.PlannedRewrite{}}
	for _, t := range tables {
		if t == "public.none" {
			return out, fmt.Errorf("%s: %w", t, lake.ErrNoTable)
		}
		out.Rewrites = append(out.Rewrites, lake.PlannedRewrite{Table: t, State: "planned", Files: 7, Bytes: 4096, Reason: "small"})
	}
	return out, nil
}
func (s *still) Compact(ctx context.Context, tables []string) (lake.Backlog, error) {
	b, err := s.Backlog(ctx, tables)
	for i := range b.Rewrites {
		b.Rewrites[i].State, b.Rewrites[i].Asked = "asked", true
	}
	return b, err
}
func (s *still) CommittedLSN(context.Context) (wal.LSN, error) { return s.at, nil }

func status() Status {
	return Status{
		Status: lake.Status{DurableLSN: 0x16_B374D848, Epoch: 3, Running: true, Slot: "firn_shop", RewritePauseSeconds: 9, Tables: []lake.TableStatus{
			{Name: "public.orders", State: lake.Streaming, Rows: 12345, DataFiles: 2, Bytes: 4096, Compaction: lake.Compaction{PlannedFiles: 7, PlannedBytes: 4096}},
			{Name: "public.<b>x</b>", State: lake.Quarantined, Reason: "its <i>rows</i>"},
			{Name: "public.new", State: lake.Loading, LoadRows: 5, LoadTotal: 10},
			{Name: "public.twice", State: lake.Skipped, Reason: "dropped"},
			{Name: "public.twice", State: lake.Streaming},
		}},
		Version: "test", Warehouse: "shop", Location: "./lake", Database: "shop at h:5432", RetainedWALBytes: 100, RetainedWALLimitBytes: -1,
	}
}

// serve starts a listener for a test.
func serve(t *testing.T, change func(*Options)) *Listener {
	t.Helper()
	o := Options{Address: "127.0.0.1:0", Status: status, Mirror: &still{at: 0x16_B374D848}, Counters: &lake.Counters{}, Version: "test",
		Expire:  func(_ context.Context, dry bool) (*Expired, error) { return &Expired{DryRun: dry, Removed: 5}, nil },
		Catalog: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { plain(w, 200, "catalog") }), Logger: slog.New(slog.DiscardHandler)}
	o.Counters.BytesWritten.Store(200)
	o.Counters.RewrittenBytes.Store(100)
	if change != nil {
		change(&o)
	}
	l, err := Open(t.Context(), o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return l
}

func ask(t *testing.T, method, url string, header http.Header) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func TestPaths(t *testing.T) {
	l := serve(t, nil)
	for _, c := range []struct {
		method, path string
		code         int
		want         string
	}{
		{"GET", "/healthz", 200, "ok"},
		{"GET", "/readyz", 503, "public.new is loading"},
		{"GET", "/v1/config", 200, "catalog"},
		{"GET", "/status", 200, `"durable_lsn": "16/B374D848"`},
		{"GET", "/", 200, "public.orders"},
		{"GET", "/metrics", 200, `firn_table_rows{table="public.orders"} 12345`},
		{"GET", "/metrics", 200, `firn_table_planned_rewrite_bytes{table="public.orders"} 4096`},
		{"GET", "/metrics", 200, `firn_write_amplification 1.5`},
		{"GET", "/metrics", 200, `firn_rewrite_seconds_total{state="pausing"} 9`},
		{"GET", "/", 200, "7 to be rewritten"},
		{"GET", "/other", 404, ""},
		{"GET", "/wait", 200, `"lsn": "16/B374D848"`},
		{"GET", "/wait?lsn=16/1", 200, `"lsn": "16/B374D848"`},
		{"GET", "/wait?lsn=17/0&timeout=50ms", 504, "did not reach 17/0 within 50ms"},
		{"GET", "/wait?lsn=x", 400, "parse LSN"},
		{"GET", "/wait?timeout=-1s", 400, "timeout"},
		{"POST", "/hold", 200, ""},
		{"GET", "/hold", 405, ""},
		{"POST", "/cut?lsn=17/0", 200, `"epoch": 7`},
		{"POST", "/cut?lsn=1/0", 409, "past that LSN"},
		{"POST", "/cut", 400, "parse LSN"},
		{"GET", "/compact", 200, `"rewrites": []`},
		{"GET", "/compact?table=public.orders", 200, `"state": "planned"`},
		{"POST", "/compact?table=public.orders&table=public.new", 200, `"state": "asked"`},
		{"POST", "/compact?table=public.none", 404, "no such table"},
		{"GET", "/expire", 200, `"dry_run": true`},
		{"POST", "/expire", 200, `"dry_run": false`},
		{"POST", "/expire", 200, `"removed_objects": 5`},
	} {
		code, body := ask(t, c.method, l.URL()+c.path, nil)
		require.Equal(t, c.code, code, "%s %s: %s", c.method, c.path, body)
		require.Contains(t, body, c.want, c.path)
	}
}

func TestStatusHasItsFields(t *testing.T) {
	l := serve(t, nil)
	_, body := ask(t, "GET", l.URL()+"/status", nil)
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	for _, key := range []string{"durable_lsn", "received_lsn", "server_lsn", "lag_bytes", "freshness_seconds", "slot", "epoch", "tables"} {
		require.Contains(t, got, key)
	}
	table := got["tables"].([]any)[0].(map[string]any)
	for _, key := range []string{"name", "state", "rows", "data_files", "delete_files", "bytes", "snapshot_id", "lsn"} {
		require.Contains(t, table, key)
	}
}

func TestPageEscapesAndAsksForNothing(t *testing.T) {
	l := serve(t, nil)
	_, body := ask(t, "GET", l.URL()+"/", nil)
	require.Contains(t, body, "public.&lt;b&gt;x")
	require.Contains(t, body, "its &lt;i&gt;rows")
	require.NotContains(t, body, "<script")
	require.NotContains(t, body, "src=")
	require.Contains(t, body, "12,345")
}

func TestTokenGuardsAllButHealth(t *testing.T) {
	l := serve(t, func(o *Options) { o.Token = "secret" })
	good := http.Header{"Authorization": {"Bearer secret"}}
	for path, method := range map[string]string{"/status": "GET", "/metrics": "GET", "/": "GET", "/wait": "GET", "/hold": "POST", "/cut?lsn=17/0": "POST", "/compact": "POST", "/expire": "POST"} {
		code, _ := ask(t, method, l.URL()+path, nil)
		require.Equal(t, 401, code, path)
		code, _ = ask(t, method, l.URL()+path, http.Header{"Authorization": {"Bearer wrong"}})
		require.Equal(t, 401, code, path)
		code, _ = ask(t, method, l.URL()+path, good)
		require.Equal(t, 200, code, path)
	}
	code, _ := ask(t, "GET", l.URL()+"/healthz", nil)
	require.Equal(t, 200, code)
	code, _ = ask(t, "GET", l.URL()+"/readyz", nil)
	require.Equal(t, 503, code)
}

func TestOtherSitesCannotChangeAnything(t *testing.T) {
	l := serve(t, nil)
	for _, path := range []string{"/hold", "/cut", "/compact", "/expire", "/v1/shop/namespaces", "/v1/shop/namespaces/public/tables/orders"} {
		for _, from := range []http.Header{{"Origin": {"http://evil.example"}}, {"Sec-Fetch-Site": {"cross-site"}}} {
			code, _ := ask(t, "POST", l.URL()+path, from)
			require.Equal(t, 403, code, path)
		}
	}
	// Engines say nothing of where they come from.
	code, _ := ask(t, "POST", l.URL()+"/v1/shop/namespaces", http.Header{"Content-Type": {"application/json"}})
	require.Equal(t, 200, code)
	code, _ = ask(t, "DELETE", l.URL()+"/v1/shop/namespaces/public", http.Header{"Origin": {"http://evil.example"}})
	require.Equal(t, 403, code)
}

// A page whose name has been made to point here is of our own origin to a
// browser; only the name tells.
func TestOtherNamesAreNotAnswered(t *testing.T) {
	ask := func(l *Listener, path, host string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", l.URL()+path, nil)
		require.NoError(t, err)
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	l := serve(t, nil)
	for _, path := range []string{"/", "/status", "/metrics", "/v1/config", "/wait"} {
		for _, host := range []string{"evil.example", "evil.example:8181", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1:8181"} {
			code, body := ask(l, path, host)
			require.Equal(t, http.StatusMisdirectedRequest, code, "%s%s", host, path)
			require.Contains(t, body, "with --token-file it answers to any name")
		}
		for _, host := range []string{l.Address(), "localhost", "LOCALHOST:8181", "firn.localhost:1", "[::1]:8181", "127.0.0.2"} {
			code, body := ask(l, path, host)
			require.Equal(t, 200, code, "%s%s: %s", host, path, body)
		}
	}
	guarded := serve(t, func(o *Options) { o.Token = "secret" })
	code, _ := ask(guarded, "/healthz", "lake.internal:8181")
	require.Equal(t, 200, code)
}

func TestWaitSurvivesARestartOfTheLake(t *testing.T) {
	m := &still{at: 0x16_B374D848}
	m.starts.Store(2)
	l := serve(t, func(o *Options) { o.Mirror = m })
	code, body := ask(t, "GET", l.URL()+"/wait", nil)
	require.Equal(t, 200, code, body)
}

func TestCatalogAloneHasNoStreamToAskFor(t *testing.T) {
	l := serve(t, func(o *Options) { o.Mirror, o.Counters = nil, nil })
	for _, path := range []string{"/wait", "/hold", "/cut", "/compact", "/expire"} {
		code, _ := ask(t, "POST", l.URL()+path, nil)
		require.Contains(t, []int{404, 405}, code, path)
	}
	_, body := ask(t, "GET", l.URL()+"/metrics", nil)
	require.Contains(t, body, "firn_epoch 3")
	require.NotContains(t, body, "firn_lag_bytes")
}

func TestRunEndsALongAnswer(t *testing.T) {
	o := Options{Address: "127.0.0.1:0", Status: status, Mirror: &still{}, Counters: &lake.Counters{}, Catalog: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler)}
	l, err := Open(t.Context(), o)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	go http.Get(l.URL() + "/wait?lsn=17/0&timeout=1h") //nolint:errcheck // it is cut off
	time.Sleep(50 * time.Millisecond)
	cancel()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for its clients")
	}
}

func TestPortInUse(t *testing.T) {
	l := serve(t, nil)
	_, err := Open(t.Context(), Options{Address: l.Address(), Status: status})
	require.ErrorContains(t, err, "listen on "+l.Address())
}

func TestMetricsPleasePromtool(t *testing.T) {
	promtool := laketest.Promtool(t)
	l := serve(t, nil)
	l.Phase("upload", time.Second)
	l.Phase("freshness", time.Second)
	_, body := ask(t, "GET", l.URL()+"/metrics", nil)
	require.Contains(t, body, `firn_commit_phase_seconds_count{phase="upload"} 1`)
	require.Contains(t, body, "firn_epoch_age_seconds_count 1")
	require.Contains(t, body, `firn_tables{state="quarantined"} 1`)
	cmd := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	cmd.Stdin = strings.NewReader(body)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Empty(t, string(out))
}

func TestTableAges(t *testing.T) {
	m := newMetrics(Options{Status: status, Counters: &lake.Counters{}})
	st := Status{Status: lake.Status{Running: true, Freshness: 2}}
	age, ok := m.tableAge(lake.TableStatus{Name: "t", State: lake.Streaming}, st)
	require.True(t, ok)
	require.InDelta(t, 2, age.Seconds(), 0.5)
	time.Sleep(20 * time.Millisecond)
	older, ok := m.tableAge(lake.TableStatus{Name: "t", State: lake.Quarantined}, st)
	require.True(t, ok)
	require.Greater(t, older, age, "it ages while the others go on")
	_, ok = m.tableAge(lake.TableStatus{Name: "t", State: lake.Skipped}, st)
	require.False(t, ok)
}

func TestNumbersForPeople(t *testing.T) {
	require.Equal(t, []string{"0 B", "1023 B", "1.0 kB", "10 kB", "1.5 GB"}, []string{Size(0), Size(1023), Size(1024), Size(10240), Size(3 << 29)})
	require.Equal(t, []string{"0", "999", "1,000", "-12,345,678"}, []string{Count(0), Count(999), Count(1000), Count(-12345678)})
}

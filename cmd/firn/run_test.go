package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/cmd/firn/internal/listen"
	"firn/lake"
	"firn/lake/laketest"
	"firn/wal/localpg"
)

// shop makes a database of its own on pg and returns its URL.
func shop(t *testing.T, pg *localpg.Server, name, sql string) string {
	t.Helper()
	do(t, pg.URL("postgres"), "create database "+name)
	do(t, pg.URL(name), sql)
	return pg.URL(name)
}

func do(t *testing.T, url, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	require.NoError(t, err, sql)
}

func one[T any](t *testing.T, url, sql string) (v T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&v), sql)
	return v
}

func (p *process) status() (st listen.Status) {
	p.t.Helper()
	code, out, err := firn(p.t, nil, "status", "--json", "--url", p.url)
	require.Zero(p.t, code, err)
	require.NoError(p.t, json.Unmarshal([]byte(out), &st))
	return st
}

func (p *process) table(name string) lake.TableStatus {
	p.t.Helper()
	for _, x := range p.status().Tables {
		if x.Name == name {
			return x
		}
	}
	p.t.Fatalf("status has no table %s", name)
	return lake.TableStatus{}
}

// wait is firn wait.
func (p *process) wait() {
	p.t.Helper()
	code, _, err := firn(p.t, nil, "wait", "--url", p.url)
	require.Zero(p.t, code, err)
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode, string(body))
	return string(body)
}

const rows = 20000

// TestRun is a lake's life: load, stream, questions, stop, start, teardown.
func TestRun(t *testing.T) {
	pg := laketest.Postgres(t, "")
	url := shop(t, pg, "shop", fmt.Sprintf(`create table orders (id int primary key, v text); create table nokey (id int); create table "Mixed" (id int primary key);
		insert into orders select i, 'v'||i from generate_series(1,%d) i`, rows))
	dir := t.TempDir()
	place := filepath.Join(dir, "lake")
	env := []string{"FIRN_POSTGRES=" + url, "FIRN_WAREHOUSE=" + place, "FIRN_STATE=" + filepath.Join(dir, "state"), "FIRN_FRESHNESS=1h"}

	p := launch(t, env, "run")
	require.Contains(t, p.log.String(), "2 tables (1 skipped) of shop at 127.0.0.1:")
	require.Contains(t, p.log.String(), `warehouse "shop"`)
	require.Contains(t, p.log.String(), "public.Mixed", "names that engines fold are warned of")
	p.ready()
	require.EqualValues(t, rows, p.table("public.orders").Rows)
	require.Equal(t, lake.Skipped, p.table("public.nokey").State)
	require.NotEmpty(t, p.table("public.nokey").Reason)

	// Another on the same lake: by the state folder at once, by the slot after
	// a while, which goes on beside what follows.
	code, _, said := firn(t, env, "run", "--listen", "127.0.0.1:0")
	require.Equal(t, exitFenced, code, said)
	require.Contains(t, said, "Another firn is using the state folder")
	var second sync.WaitGroup
	rival := command(t, append(env, "FIRN_STATE="+filepath.Join(dir, "state2")), "run", "--listen", "127.0.0.1:0")
	var rivalSaid safeBuffer
	rival.Stderr = &rivalSaid
	require.NoError(t, rival.Start())
	second.Go(func() { _ = rival.Wait() })
	defer second.Wait()
	defer func() { _ = rival.Process.Kill() }()

	do(t, url, "insert into orders values (0, 'new'); update orders set v = 'x' where id <= 10; delete from orders where id > 19990")
	p.wait()
	require.EqualValues(t, rows-9, p.table("public.orders").Rows, "freshness is an hour, but somebody waited")
	code, out, said := firn(t, nil, "status", "--url", p.url)
	require.Zero(t, code, said)
	require.Contains(t, out, "public.orders  streaming  19,991")
	code, _, said = firn(t, nil, "wait", "--url", p.url, "--lsn", "FFFF/0", "--timeout", "200ms")
	require.Equal(t, exitFailure, code)
	require.Contains(t, said, "did not reach FFFF/0 within 200ms")

	p.questions(env)
	p.listener()

	code, _, said = firn(t, env, "teardown", "--yes", "--state", filepath.Join(dir, "state3"))
	require.Equal(t, exitFenced, code, said)
	require.Contains(t, said, "A firn is streaming from slot firn_shop_")

	// What is open is committed at the end.
	do(t, url, "insert into orders values (-1, 'last')")
	require.Eventually(t, func() bool { return p.status().Freshness > 0 }, 20*time.Second, 50*time.Millisecond)
	second.Wait()
	require.Equal(t, exitFenced, rival.ProcessState.ExitCode(), rivalSaid.String())
	require.Contains(t, rivalSaid.String(), "slot")
	require.Zero(t, p.stop())

	do(t, url, "insert into orders values (-2, 'while it was stopped')")
	p = launch(t, env, "run")
	p.ready()
	p.wait()
	require.EqualValues(t, rows-7, p.table("public.orders").Rows)

	// A kill, and another start: the lake goes on.
	require.NoError(t, p.cmd.Process.Kill())
	require.Equal(t, -1, p.code())
	do(t, url, "insert into orders values (-3, 'after a kill')")
	p = launch(t, env, "run")
	p.ready()
	p.wait()
	require.EqualValues(t, rows-6, p.table("public.orders").Rows)
	require.Zero(t, p.stop())

	code, out, said = firn(t, env, "doctor")
	require.Zero(t, code, out+said)
	require.Contains(t, out, "max_slot_wal_keep_size = '10GB'")
	require.Contains(t, out, "public.nokey will be skipped")
	settings := filepath.Join(t.TempDir(), "firn.yaml")
	require.NoError(t, os.WriteFile(settings, []byte("table_settings:\n  public.orders:\n    sort_by: id, nope\n"), 0o600))
	code, out, said = firn(t, env, "doctor", "--config", settings)
	require.Zero(t, code, out+said)
	require.Contains(t, out, "What firn.yaml says of public.orders is not in force: there is no column nope")
	catalogAlone(t, env)
	tearDown(t, env, url, place)
}

// questions asks the lake about its past.
func (p *process) questions(env []string) {
	t := p.t
	code, out, said := firn(t, env, "snapshots", "--json")
	require.Zero(t, code, said)
	var epochs []struct{ LSN, Time string }
	require.NoError(t, json.Unmarshal([]byte(out), &epochs))
	require.GreaterOrEqual(t, len(epochs), 2)
	code, out, said = firn(t, env, "snapshots", "public.orders")
	require.Zero(t, code, said)
	require.Contains(t, out, "snapshot  append")
	require.Contains(t, out, "20,000")
	require.Contains(t, out, "(current)")

	var now, then view
	code, out, said = firn(t, env, "asof", "latest", "public.orders", "--json")
	require.Zero(t, code, said)
	require.NoError(t, json.Unmarshal([]byte(out), &now))
	last := epochs[len(epochs)-2]
	code, out, said = firn(t, env, "asof", last.LSN, "public.orders", "--json")
	require.Zero(t, code, said)
	require.NoError(t, json.Unmarshal([]byte(out), &then))
	require.NotEqual(t, now.Tables[0].SnapshotID, then.Tables[0].SnapshotID)
	require.Equal(t, last.LSN, then.LSN.String())
	for _, c := range []struct{ moment, want string }{
		{"FFFF/0", "has not reached that moment"}, {"2001-01-01T00:00:00Z", "no kept epoch shows that moment"}, {"gestern", "gestern is no moment"},
	} {
		code, _, said = firn(t, env, "asof", c.moment)
		require.NotZero(t, code)
		require.Contains(t, said, c.want)
	}
	code, _, said = firn(t, env, "snapshots", "public.none")
	require.Equal(t, exitUsage, code)
	require.Contains(t, said, "there is no table public.none")
}

// listener looks at what a running firn serves.
func (p *process) listener() {
	t := p.t
	require.Contains(t, get(t, p.url+"/v1/config?warehouse=shop"), "endpoints")
	require.Contains(t, get(t, p.url+"/v1/namespaces/public/tables"), "orders")
	require.Contains(t, get(t, p.url+"/"), "public.orders")
	metrics := get(t, p.url+"/metrics")
	for _, want := range []string{`firn_changes_total{kind="insert"} 1`, `firn_changes_total{kind="delete"} 10`, "firn_loaded_rows_total 20000",
		`firn_table_freshness_seconds{table="public.orders"}`, `firn_commit_phase_seconds_count{phase="publish"}`, `firn_tables{state="skipped"} 1`} {
		require.Contains(t, metrics, want)
	}
	require.Eventually(t, func() bool { return strings.Contains(get(t, p.url+"/metrics"), "\nfirn_retained_wal_bytes ") }, 20*time.Second, 100*time.Millisecond)
	cmd := exec.CommandContext(t.Context(), laketest.Promtool(t), "check", "metrics")
	cmd.Stdin = strings.NewReader(metrics)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

// catalogAlone asks firn serve, which has only the warehouse.
func catalogAlone(t *testing.T, env []string) {
	secret := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(secret, []byte("secret\n"), 0o600))
	s := launch(t, env, "serve", "--token-file", secret)
	code, out, said := firn(t, nil, "status", "--url", s.url, "--token-file", secret)
	require.Zero(t, code, said)
	require.Contains(t, out, "public.orders")
	code, _, said = firn(t, nil, "status", "--url", s.url)
	require.Equal(t, exitUsage, code)
	require.Contains(t, said, "wants a token")
	require.Zero(t, s.stop())
}

func tearDown(t *testing.T, env []string, url, place string) {
	code, out, said := firn(t, env, "teardown", "--lake")
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, "public/orders-")
	require.Contains(t, said, "there is nobody to ask; give --yes")
	require.EqualValues(t, 1, one[int64](t, url, "select count(*) from pg_replication_slots"))
	code, _, said = firn(t, env, "teardown", "--yes")
	require.Zero(t, code, said)
	require.Zero(t, one[int64](t, url, "select count(*) from pg_replication_slots"))
	require.Zero(t, one[int64](t, url, "select count(*) from pg_publication"))
	require.DirExists(t, place)
	code, _, said = firn(t, env, "run", "--listen", "127.0.0.1:0")
	require.Equal(t, exitDiverged, code, said)
	require.Contains(t, said, "The replication slot is gone")
	code, _, said = firn(t, env, "teardown", "--lake", "--yes")
	require.Zero(t, code, said)
	require.NoDirExists(t, place)
}

func TestRunRefuses(t *testing.T) {
	pg := laketest.PostgresWith(t, "", localpg.Options{HBA: []string{"host all postgres 127.0.0.1/32 trust", "host all all 127.0.0.1/32 scram-sha-256"}})
	url := shop(t, pg, "shop", `create table orders (id int primary key); create role mallory login password 'right';
		create role poor login replication password 'right'`)
	as := func(user string) string { return strings.Replace(url, "postgres@", user+"@", 1) }
	require.NotEqual(t, url, as("x"))
	foreign := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "precious.txt"), []byte("x"), 0o600))
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, c := range []struct {
		name, url, place string
		args             []string
		code             int
		want             string
	}{
		{"wrong password", as("mallory:wrong"), "lake", nil, exitPreflight, "the password is taken from FIRN_POSTGRES, PGPASSWORD or ~/.pgpass"},
		{"no rights", as("poor:right"), "lake", nil, exitPreflight, "GRANT SELECT ON"},
		{"no replication", as("mallory:right"), "lake", nil, exitPreflight, "REPLICATION"},
		{"unreachable", "postgres://postgres@127.0.0.1:1/shop", "lake", nil, exitFailure, "Check host and port of --postgres"},
		{"no such host", "postgres://postgres@nowhere.invalid/shop", "lake", nil, exitFailure, "nowhere.invalid"},
		{"no such database", pg.URL("none"), "lake", nil, exitPreflight, "Check the database's name"},
		{"no table matches", url, "lake", []string{"--tables", "nothing.*"}, exitPreflight, "No table can be mirrored: no table matches"},
		{"foreign folder", url, foreign, nil, exitPreflight, "Choose an empty folder or prefix"},
		{"a file", url, file, nil, exitFailure, file},
		{"no parent", url, "/nowhere/at/all", nil, exitFailure, "/nowhere/at/all"},
	} {
		t.Run(c.name, func(t *testing.T) {
			place := c.place
			if !filepath.IsAbs(place) {
				place = filepath.Join(t.TempDir(), place)
			}
			code, _, said := firn(t, []string{"FIRN_POSTGRES=" + c.url}, append([]string{"run", "--warehouse", place, "--listen", "127.0.0.1:0"}, c.args...)...)
			require.Equal(t, c.code, code, said)
			require.Contains(t, said, c.want)
			require.NotContains(t, said, "wrong", "no password is shown")
		})
	}
	require.Zero(t, one[int64](t, url, "select count(*) from pg_replication_slots"))
	require.Zero(t, one[int64](t, url, "select count(*) from pg_publication"))
	require.FileExists(t, filepath.Join(foreign, "precious.txt"))
}

func TestRunOnS3(t *testing.T) {
	store := laketest.MinIO(t)
	pg := laketest.Postgres(t, "")
	url := shop(t, pg, "shop", `create table orders (id int primary key); insert into orders values (1)`)
	env := append(store.Env(), "FIRN_POSTGRES="+url)
	place := "s3://" + store.Bucket(t) + "/shop"
	for _, c := range []struct {
		name, place, endpoint string
		env                   []string
		code                  int
		want                  string
	}{
		{"no bucket", "s3://no-such-bucket/shop", store.Endpoint, nil, exitPreflight, "no-such-bucket"},
		{"wrong secret", place, store.Endpoint, []string{"AWS_SECRET_ACCESS_KEY=wrong"}, exitPreflight, ""},
		{"unreachable", place, "http://127.0.0.1:1", nil, exitFailure, "127.0.0.1:1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, said := firn(t, append(env, c.env...), "run", "--warehouse", c.place, "--s3-endpoint", c.endpoint, "--listen", "127.0.0.1:0")
			require.Equal(t, c.code, code, said)
			require.Contains(t, said, c.want)
		})
	}
	env = append(env, "FIRN_WAREHOUSE="+place, "FIRN_S3_ENDPOINT="+store.Endpoint)
	p := launch(t, env, "run", "--reader-s3-endpoint", "http://minio.internal:9000")
	p.ready()
	require.EqualValues(t, 1, p.table("public.orders").Rows)
	config := get(t, p.url+"/v1/config")
	require.Contains(t, config, "http://minio.internal:9000")
	require.NotContains(t, config, "secret")
	require.Zero(t, p.stop())
	code, out, said := firn(t, env, "teardown", "--lake", "--yes")
	require.Zero(t, code, said)
	require.Contains(t, out, "_firn")
	code, _, said = firn(t, env, "snapshots")
	require.Equal(t, exitPreflight, code)
	require.Contains(t, said, "There is no lake at")
}

// TestRunGoesOnAfterAnOutage restarts and kills Postgres under a firn that
// stays.
func TestRunGoesOnAfterAnOutage(t *testing.T) {
	pg := laketest.PostgresWith(t, "", localpg.Options{Fsync: true})
	url := shop(t, pg, "shop", `create table orders (id int primary key)`)
	p := launch(t, []string{"FIRN_POSTGRES=" + url}, "run", "--warehouse", filepath.Join(t.TempDir(), "lake"), "--freshness", "100ms")
	p.ready()
	for i, down := range []func() error{func() error { return pg.Stop(t.Context()) }, pg.Kill} {
		require.NoError(t, down())
		require.Eventually(t, func() bool { return p.status().Outage != "" }, 20*time.Second, 50*time.Millisecond)
		require.Contains(t, get(t, p.url+"/v1/namespaces/public/tables"), "orders", "the catalog goes on answering")
		require.NoError(t, pg.Restart(t.Context()))
		do(t, url, fmt.Sprintf("insert into orders values (%d)", i))
		p.ready()
		p.wait()
		require.EqualValues(t, i+1, p.table("public.orders").Rows)
	}
	require.Contains(t, p.log.String(), "the stream goes on")
	require.Zero(t, p.stop())
}

func TestFailpointKills(t *testing.T) {
	pg := laketest.Postgres(t, "")
	url := shop(t, pg, "shop", `create table orders (id int primary key)`)
	place, state := filepath.Join(t.TempDir(), "lake"), t.TempDir()
	env := []string{"FIRN_POSTGRES=" + url, "FIRN_STATE=" + state, "FIRN_WAREHOUSE=" + place}
	cmd := command(t, append(env, "FIRN_FAILPOINT=after-upload:1"), "run", "--listen", "127.0.0.1:0")
	require.Error(t, cmd.Run())
	require.Equal(t, syscall.SIGKILL, cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
	p := launch(t, env, "run")
	p.ready()
	require.Zero(t, p.stop())
}

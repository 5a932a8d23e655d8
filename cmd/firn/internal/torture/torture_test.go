// Package torture mirrors random traffic from a real Postgres to a real MinIO
// while firn is killed again and again, and compares what independent readers
// see with what Postgres held, exactly.
package torture

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"firn/catalog"
	"firn/lake"
	"firn/lake/laketest"
	"firn/lake/object"
	"firn/lake/snapshot"
)

var (
	seedFlag  = flag.Uint64("torture.seed", 0, "seed of the workload and the kills; 0: a new one")
	killsFlag = flag.Int("torture.kills", 12, "kills at random moments, besides one at each failpoint")
	cutsFlag  = flag.Int("torture.cuts", 3, "exact comparisons between the kills")
	forFlag   = flag.Duration("torture.for", 0, "go on killing for so long")
)

// rig is the whole set: source, store, mirror, judges.
type rig struct {
	t         *told
	pgURL     string
	minio     *laketest.MinIOServer
	firn      *firn
	store     object.Store
	duck      *laketest.DuckDBEngine
	py        *laketest.PyIcebergEngine
	load      *laketest.Workload
	book      *book
	foreign   *foreign
	warehouse string

	cuts   map[uint64]map[string]laketest.Multiset // what Postgres held, by epoch and table
	kills  int
	judged int // snapshots of tables that both readers read
	apart  int // that were not where their epoch was, and were not judged
}

func TestTorture(test *testing.T) {
	laketest.Short(test, "no torture")
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	replay := fmt.Sprintf("go test ./cmd/firn/internal/torture -run TestTorture -torture.seed %d", seed)
	test.Log("replay with: " + replay)
	t := tell(test, replay)
	rng := rand.New(rand.NewPCG(seed, 7))
	pg := laketest.Postgres(t, "")
	require.NoError(t, pg.Configure(map[string]string{"logical_decoding_work_mem": "64kB", "max_connections": "60"}))
	s := laketest.MinIO(t)
	r := &rig{t: t, pgURL: pg.URL("postgres"), minio: s, load: &laketest.Workload{URL: pg.URL("postgres"), Seed: seed, Writers: 3},
		book: &book{url: pg.URL("postgres"), seed: seed}, cuts: map[uint64]map[string]laketest.Multiset{}}
	require.NoError(t, r.load.Setup(t.Context()))
	r.firn = newFirn(t, r.pgURL, s, tortureConfig+bookConfig)
	r.warehouse = r.firn.lake[1]
	options := object.Options{Endpoint: s.Endpoint, Region: s.Region, AccessKeyID: s.AccessKey, SecretAccessKey: s.SecretKey}
	var err error
	r.store, err = object.Open(t.Context(), r.warehouse, options)
	require.NoError(t, err)
	r.duck, r.py = laketest.DuckDB(t), laketest.PyIceberg(t)
	r.duck.S3(t, s)

	require.NoError(t, r.book.setup(t.Context()))
	r.foreign, err = newForeign(t.Context(), r.store, options, slices.Concat(bookTables, laketest.WorkloadTables), seed)
	require.NoError(t, err)
	defer r.foreign.server.Close()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	traffic, tctx := errgroup.WithContext(ctx)
	traffic.Go(func() error { return r.load.Run(tctx) })
	traffic.Go(func() error { return r.book.run(tctx) })
	traffic.Go(func() error { return r.foreign.run(tctx) })
	began := time.Now()
	r.killAtEachPoint()
	every := max(1, *killsFlag/max(1, *cutsFlag))
	for i := 0; i < *killsFlag || time.Since(began) < *forFlag; i++ {
		require.NoError(t, context.Cause(tctx), "the traffic has ended")
		if i%2 == 0 {
			t.step("kill %d, at a random moment", i)
			r.firn.start("")
			time.Sleep(time.Duration(200+rng.IntN(2800)) * time.Millisecond)
			r.firn.alive()
			r.kill()
		} else {
			r.killAt(laterPoints()[rng.IntN(len(laterPoints()))], 1+rng.IntN(8))
		}
		if i%every == every-1 {
			r.firn.start("")
			r.compareAtACut()
			r.kill()
			if i/every%10 == 9 {
				r.judgeHistory() // nobody thins it out meanwhile
			}
		}
	}
	stop()
	t.step("the traffic's end")
	require.NoError(t, traffic.Wait())
	r.firn.start("")
	r.compareAtACut()
	r.judgeHistory()
	r.swept()
	r.firn.kill()
	for name, want := range bookLayouts {
		partition, sort, err := r.foreign.layout(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, want, [2]int{partition, sort}, "fields that %s is partitioned and sorted by", name)
	}
	landed, by, lost := r.foreign.counts()
	t.Logf("%s: %d kills survived; %d rewrites by firn; %d by another engine landed (%v), %d lost to the stream; %d transactions in the book; %d snapshots of tables judged, %d apart",
		time.Since(began).Round(time.Second), r.kills, r.firn.rewrites, landed, by, lost, r.book.written.Load(), r.judged, r.apart)
	require.GreaterOrEqual(t, r.kills, len(lake.FailPoints)+*killsFlag)
	require.Greater(t, landed, len(lake.FailPoints))
	require.NotZero(t, r.firn.rewrites)
}

const tortureConfig = `
compaction: true
grace: 10s
table_settings:
  torture.acct: {format_version: 3}
  torture.dup: {format_version: 3}
  torture.typed: {format_version: 3}
  torture.evo: {format_version: 3}
`

// kill kills firn where it is.
func (r *rig) kill() {
	r.t.Helper()
	r.firn.kill()
	r.kills++
}

// killAt has somebody else rewrite a table after dieAt, before firn runs again.
func (r *rig) killAt(point string, n int) {
	r.t.Helper()
	r.dieAt(point, n)
	_, err := r.foreign.rewrite(r.t.Context(), r.foreign.pick())
	require.NoError(r.t, err)
}

// dieAt runs firn until it has killed itself at a failpoint for the n-th time that
// it came there.
func (r *rig) dieAt(point string, n int) {
	r.t.Helper()
	spec := fmt.Sprintf("%s:%d", point, n)
	r.t.step("failpoint %s", spec)
	r.firn.start(spec)
	r.firn.dies(spec, 90*time.Second)
	r.kills++
}

var (
	firstPoints = []string{"before-slot", "after-slot", "in-load", "before-load-join"}
	// ofRewrites are passed every few seconds, and after-look every ten; the
	// others with every epoch.
	ofRewrites = []string{"in-rewrite", "after-rewrite", "after-install", "in-relocate"}
)

const rarePoint = "after-look"

func laterPoints() []string {
	return slices.DeleteFunc(slices.Clone(lake.FailPoints), func(p string) bool { return p == rarePoint || slices.Contains(firstPoints, p) })
}

// killAtEachPoint runs firn once for each failpoint, twice for those that come
// often, until it has killed itself there.
func (r *rig) killAtEachPoint() {
	for _, p := range firstPoints {
		r.killAt(p, 1)
	}
	r.t.step("the first time that all tables are loaded")
	r.firn.start("")
	r.firn.ready(2 * time.Minute)
	r.kill()
	// Commits by others begin a new session, whose first look is ten seconds off.
	r.foreign.paused.Lock()
	r.dieAt(rarePoint, 1)
	r.foreign.paused.Unlock()
	later := laterPoints()
	for i, p := range slices.Concat(later, later) {
		times := 1 + i*3%7
		if slices.Contains(ofRewrites, p) {
			times = 1 + i%2
		}
		r.killAt(p, times)
	}
}

// compareAtACut takes Postgres' exact state at a position in the middle of the
// traffic, has the lake cut an epoch there, and compares each table as DuckDB
// and PyIceberg read it.
func (r *rig) compareAtACut() {
	r.t.Helper()
	r.t.step("cut %d", len(r.cuts)+1)
	resume := r.load.PauseSchema()
	defer resume()
	r.foreign.paused.Lock() // a table that it moves is not at the cut
	defer r.foreign.paused.Unlock()
	r.firn.looked(2 * time.Minute) // a rewrite may make a table load anew
	r.firn.ready(2 * time.Minute)
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	require.NoError(r.t, r.firn.post(ctx, "/hold", nil))
	snap, lsn, closeSnap := r.exportSnapshot(ctx)
	defer closeSnap()
	var cut struct {
		LSN   string `json:"lsn"`
		Epoch uint64 `json:"epoch"`
	}
	require.NoError(r.t, r.firn.post(ctx, "/cut?lsn="+url.QueryEscape(lsn), &cut), "cut at %s", lsn)
	state := r.stateAt(ctx, cut.Epoch)
	r.py.Catalog(r.t, "lake", map[string]string{"uri": r.firn.url, "s3.endpoint": r.minio.Endpoint, "s3.region": r.minio.Region,
		"s3.access-key-id": r.minio.AccessKey, "s3.secret-access-key": r.minio.SecretKey})
	r.t.Logf("comparing at %s, epoch %d", lsn, cut.Epoch)
	rows := map[string]laketest.Multiset{}
	for _, name := range laketest.WorkloadTables {
		schema, table, _ := strings.Cut(name, ".")
		entry, ok := state.Table(catalog.Ident{Namespace: []string{schema}, Name: table})
		require.True(r.t, ok, "%s is not in the lake at epoch %d", name, cut.Epoch)
		require.Equal(r.t, lake.Streaming, entry.Mirror.State, "%s: %s", name, entry.Mirror.Reason)
		want := r.fromPostgres(ctx, snap, name)
		rows[name] = want.Multiset()
		for reader, got := range map[string]*laketest.Result{
			"DuckDB":    r.duck.Scan(r.t, entry.Metadata),
			"PyIceberg": r.py.Scan(r.t, "lake", name, laketest.ScanOptions{Snapshot: entry.SnapshotID}),
		} {
			assert.Empty(r.t, laketest.Diff(rows[name], got.Multiset()), "%s by %s at %s", name, reader, lsn)
			assert.ElementsMatch(r.t, want.Schema(), got.Schema(), "%s by %s", name, reader)
		}
	}
	require.False(r.t, r.t.Failed()) // every table that differs has been told
	r.cuts[cut.Epoch] = rows
	r.tag(ctx, fmt.Sprintf("cut-%d", cut.Epoch), cut.LSN)
}

// swept waits until nothing lies in the lake that no kept epoch needs, and sees
// that all that they need is there.
func (r *rig) swept() {
	r.t.Helper()
	r.t.step("sweep")
	ctx := r.t.Context()
	log, err := catalog.OpenLog(ctx, r.store, catalog.LogOptions{})
	require.NoError(r.t, err)
	var needed, needless, missing, others int
	defer func() {
		r.t.Logf("%d objects that kept epochs need, %d missing; %d that nobody needs, and %d that other engines left", needed, missing, needless, others)
	}()
	// look says what the head and the kept epochs need, and what lies there. Only
	// what a head says that is still the head after is a finding: an epoch that is
	// thinned out meanwhile takes its files along.
	look := func(head *catalog.State) error {
		need := map[uint64]bool{}
		var mu sync.Mutex
		reach := snapshot.NewReach(r.store, xxh3.HashString)
		visit := func(s *catalog.State, history bool) error {
			for _, x := range s.Tables() {
				err := reach.Visit(ctx, x.Metadata, history, func(h uint64) {
					mu.Lock()
					need[h] = true
					mu.Unlock()
				})
				if err != nil {
					return err
				}
			}
			return nil
		}
		if err := visit(head, true); err != nil {
			return err
		}
		for _, k := range head.Epochs() {
			s, err := log.Entry(ctx, k.Number)
			if err == nil {
				err = visit(s, false)
			}
			if err != nil {
				return err
			}
		}
		// Listed after, for what is published meanwhile is needed by nothing here.
		keys, err := r.store.Keys(ctx, "", "", 0)
		if err != nil {
			return err
		}
		needed, needless, others, missing = len(need), 0, 0, len(need)
		for _, k := range keys {
			switch file := strings.Contains(k, "/data/") || strings.Contains(k, "/metadata/"); {
			case need[xxh3.HashString(k)]:
				missing--
			case !file || strings.HasSuffix(k, "/version-hint.text"):
			case !snapshot.OwnName(k):
				others++ // they have a day to commit them
			default:
				needless++
			}
		}
		return nil
	}
	require.Eventually(r.t, func() bool {
		head, err := log.Refresh(ctx)
		require.NoError(r.t, err)
		found := look(head)
		after, err := log.Refresh(ctx)
		require.NoError(r.t, err)
		if after.Number != head.Number {
			return false
		}
		require.NoError(r.t, found)
		require.Zero(r.t, missing)
		return needless < 100 // some wait for firn's garbage collector
	}, 4*time.Minute, time.Second)
}

// exportSnapshot makes a temporary slot beside firn's and exports its snapshot.
// The tables are locked before, for a TRUNCATE after it would empty them in the
// snapshot as well.
func (r *rig) exportSnapshot(ctx context.Context) (name, lsn string, done func()) {
	r.t.Helper()
	lock, err := pgx.Connect(ctx, r.pgURL)
	require.NoError(r.t, err)
	_, err = lock.Exec(ctx, "begin; lock table "+strings.Join(laketest.WorkloadTables, ", ")+" in access share mode")
	require.NoError(r.t, err)
	conn, err := pgconn.Connect(ctx, r.pgURL+"&replication=database")
	if !strings.Contains(r.pgURL, "?") {
		conn, err = pgconn.Connect(ctx, r.pgURL+"?replication=database")
	}
	require.NoError(r.t, err)
	res, err := pglogrepl.CreateReplicationSlot(ctx, conn, fmt.Sprintf("judge_%d", os.Getpid()), "pgoutput",
		pglogrepl.CreateReplicationSlotOptions{Temporary: true, SnapshotAction: "EXPORT_SNAPSHOT"})
	require.NoError(r.t, err)
	return res.SnapshotName, res.ConsistentPoint, func() {
		conn.Close(context.WithoutCancel(ctx))
		lock.Close(context.WithoutCancel(ctx))
	}
}

func (r *rig) fromPostgres(ctx context.Context, snapshot, table string) *laketest.Result {
	r.t.Helper()
	config, err := pgx.ParseConfig(r.pgURL)
	require.NoError(r.t, err)
	for k, v := range map[string]string{"client_encoding": "UTF8", "DateStyle": "ISO", "IntervalStyle": "postgres",
		"TimeZone": "UTC", "extra_float_digits": "3", "bytea_output": "hex"} {
		config.RuntimeParams[k] = v
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	require.NoError(r.t, err)
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, "begin isolation level repeatable read read only")
	require.NoError(r.t, err)
	_, err = conn.Exec(ctx, "set transaction snapshot '"+snapshot+"'")
	require.NoError(r.t, err)
	res, err := laketest.QueryPostgres(ctx, conn.PgConn(), "select * from "+table)
	require.NoError(r.t, err)
	return res
}

// stateAt is the catalog as the epoch left it.
func (r *rig) stateAt(ctx context.Context, epoch uint64) *catalog.State {
	r.t.Helper()
	log, err := catalog.OpenLog(ctx, r.store, catalog.LogOptions{})
	require.NoError(r.t, err)
	for _, k := range log.Head().Epochs() {
		if k.Epoch == epoch {
			state, err := log.Entry(ctx, k.Number)
			require.NoError(r.t, err)
			return state
		}
	}
	r.t.Fatalf("epoch %d is not among the kept ones", epoch)
	return nil
}

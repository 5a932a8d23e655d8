package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/minio/minio-go/v7"

	"firn/lake/laketest"
	"firn/wal/localpg"
)

// Names that are the same in every rig.
const (
	database = "bench"
	bucket   = "bench"
)

// rig is the servers of one case.
type rig struct {
	o          *options
	dir        string // of all but Postgres' data
	pg         *localpg.Server
	pgBin      string
	postmaster int // process
	url        string
	conn       *pgx.Conn // for set-up: its commits don't wait for the disk
	s3         *laketest.MinIOServer
	duckdb     *laketest.DuckDBEngine
}

// newRig starts Postgres as it is shipped, but for what logical replication
// needs, MinIO and DuckDB.
func newRig(ctx context.Context, o *options) (_ *rig, err error) {
	commit() // that of the binary, which is built now, before any clock runs
	if _, err := laketest.FirnBinary(); err != nil {
		return nil, err
	}
	r := &rig{o: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.dir, err = laketest.SharedDir("bench"); err != nil {
		return nil, err
	}
	cache, err := laketest.CacheDir()
	if err != nil {
		return nil, err
	}
	if r.pgBin, err = localpg.Find(ctx, cache, ""); err != nil {
		return nil, err
	}
	// As a server that is written to a lot is set up. By default there is a
	// checkpoint for each GB of WAL, after which each page that is changed is
	// written to it whole, and a backlog is pages rather than rows.
	wal := map[string]string{"max_wal_size": "4GB", "checkpoint_timeout": "30min"}
	if r.pg, err = localpg.Start(ctx, localpg.Options{BinDir: r.pgBin, Fsync: true, Settings: wal}); err != nil {
		return nil, err
	}
	pid, err := os.ReadFile(filepath.Join(r.pg.Dir(), "postmaster.pid"))
	if err != nil {
		return nil, fmt.Errorf("find Postgres' process: %w", err)
	}
	first, _, _ := strings.Cut(string(pid), "\n")
	if r.postmaster, err = strconv.Atoi(first); err != nil {
		return nil, fmt.Errorf("find Postgres' process: %w", err)
	}
	if r.s3, err = laketest.StartMinIO(ctx, filepath.Join(r.dir, "minio")); err != nil {
		return nil, err
	}
	if err := r.s3.Client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{Region: r.s3.Region}); err != nil {
		return nil, fmt.Errorf("make bucket: %w", err)
	}
	if r.duckdb, err = laketest.StartDuckDB(ctx); err != nil {
		return nil, err
	}
	admin, err := pgx.Connect(ctx, r.pg.URL("postgres"))
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	if _, err := admin.Exec(ctx, "create database "+database); err != nil {
		return nil, fmt.Errorf("make database: %w", err)
	}
	r.url = r.pg.URL(database)
	if r.conn, err = pgx.Connect(ctx, r.url); err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return r, r.exec(ctx, "set synchronous_commit = off")
}

// close ends the servers and removes what they wrote.
func (r *rig) close() error {
	if r.duckdb != nil {
		r.duckdb.Stop()
	}
	if r.s3 != nil {
		r.s3.Stop()
	}
	var err error
	if r.pg != nil {
		err = r.pg.Close()
	}
	if r.dir != "" {
		err = errors.Join(err, os.RemoveAll(r.dir))
	}
	return err
}

// size is one of two, by -short.
func (r *rig) size(full, short int64) int64 {
	if r.o.short {
		return short
	}
	return full
}

// rounds is how often a run is repeated whose median counts.
func (r *rig) rounds() int { return int(r.size(3, 1)) }

// exec runs statements, one after the other, each a transaction of its own
// unless it says otherwise.
func (r *rig) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := r.conn.Exec(ctx, sql); err != nil {
			if len(sql) > 100 {
				sql = sql[:100] + "…"
			}
			return fmt.Errorf("run %s: %w", sql, err)
		}
	}
	return nil
}

// say tells what is being done, for cases take minutes.
func (r *rig) say(format string, args ...any) {
	fmt.Fprintf(r.o.out, "   %s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

// quiet brings Postgres to rest: nothing left to write, statistics there.
func (r *rig) quiet(ctx context.Context) error { return r.exec(ctx, "vacuum analyze", "checkpoint") }

// walEnd is where Postgres' WAL ends, with all that was committed flushed.
func (r *rig) walEnd(ctx context.Context) (string, error) {
	// The set-up's commits may not have been flushed; this one waits.
	if err := r.exec(ctx, "set synchronous_commit = on", "select pg_logical_emit_message(true, 'bench', '')", "set synchronous_commit = off"); err != nil {
		return "", err
	}
	var lsn string
	if err := r.conn.QueryRow(ctx, "select pg_current_wal_flush_lsn()::text").Scan(&lsn); err != nil {
		return "", fmt.Errorf("ask for the end of WAL: %w", err)
	}
	return lsn, nil
}

// setSeed makes random() of the session repeatable, and different each round.
func (r *rig) setSeed(ctx context.Context, round int) error {
	return r.exec(ctx, fmt.Sprintf("select setseed(%f)", float64((r.o.seed*31+int64(round))%1000)/1000))
}

// program finds one of Postgres' client programs.
func (r *rig) program(name string) (string, error) {
	path := filepath.Join(r.pgBin, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find %s, which the floors and pgbench need (Debian: apt-get install postgresql): %w", name, err)
	}
	return path, nil
}

// Package demo is a small shop to mirror: a throwaway Postgres in a folder,
// tables with some ten thousand rows, and a writer that never leaves them alone.
package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"

	"firn/wal/localpg"
)

// Database is the shop's name.
const Database = "shop"

// marker is the file that says that a folder is a demo's.
const marker = ".firn-demo"

// ErrInUse: a demo runs in the folder already.
var ErrInUse = errors.New("a demo is running there")

// ErrForeign: the folder holds something else.
var ErrForeign = errors.New("the folder holds something that is not a demo's")

// Place is a demo's folder, locked.
type Place struct {
	Dir      string // absolute
	Lake     string
	State    string
	Postgres string // Postgres' data folder
	Resumed  bool   // it was there, with a shop in it

	lock *flock.Flock
}

// OpenPlace takes a folder, made if it is not there; fresh empties what an
// earlier demo left in it. Postgres' data lie beside where its user may not
// enter the folder (as root, who may not run it).
func OpenPlace(dir string, fresh bool) (_ *Place, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("find folder %s: %w", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read demo folder: %w", err)
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return nil, fmt.Errorf("%w: %s", ErrForeign, dir)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make demo folder: %w", err)
	}
	p := &Place{Dir: dir, Lake: filepath.Join(dir, "lake"), State: filepath.Join(dir, "state"), Postgres: filepath.Join(dir, "postgres"),
		lock: flock.New(filepath.Join(dir, marker))}
	if ok, err := p.lock.TryLock(); err != nil {
		return nil, fmt.Errorf("lock demo folder: %w", err)
	} else if !ok {
		return nil, fmt.Errorf("%w: %s", ErrInUse, dir)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if localpg.Reachable(dir) != nil {
		sum := sha256.Sum256([]byte(dir))
		p.Postgres = filepath.Join(os.TempDir(), "firn-demo-postgres-"+hex.EncodeToString(sum[:6]))
	}
	if fresh {
		for _, d := range []string{p.Postgres, p.Postgres + ".part", p.Lake, p.State} {
			if err := os.RemoveAll(d); err != nil {
				return nil, fmt.Errorf("remove the earlier demo: %w", err)
			}
		}
	}
	_, err = os.Stat(p.Postgres)
	p.Resumed = err == nil
	if _, lake := os.Stat(p.Lake); lake == nil && !p.Resumed {
		return nil, fmt.Errorf("%w: there is a lake in %s, but its Postgres (%s) is gone", ErrForeign, dir, p.Postgres)
	}
	return p, nil
}

// Close lets go of the folder.
func (p *Place) Close() error {
	if err := p.lock.Unlock(); err != nil {
		return fmt.Errorf("unlock demo folder: %w", err)
	}
	return nil
}

// Start starts the folder's Postgres, with the shop in it. The server ends with
// its Stop, or with this process.
func (p *Place) Start(ctx context.Context, binDir string) (_ *localpg.Server, err error) {
	server, err := localpg.Start(ctx, localpg.Options{BinDir: binDir, Dir: p.Postgres, Settings: map[string]string{
		// A demo that is stopped for a week must not fill the disk.
		"max_slot_wal_keep_size": "4GB",
		"synchronous_commit":     "off",
	}})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, server.Close())
		}
	}()
	if err := createDatabase(ctx, server.URL("postgres")); err != nil {
		return nil, err
	}
	if err := fill(ctx, server.URL(Database)); err != nil {
		return nil, err
	}
	return server, nil
}

func createDatabase(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the demo's Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", Database).Scan(&there); err != nil {
		return fmt.Errorf("look for database %s: %w", Database, err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+Database); err != nil {
		return fmt.Errorf("create database %s: %w", Database, err)
	}
	return nil
}

// fill makes the shop, all or nothing, unless it is there.
func fill(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the shop: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('public.events') IS NOT NULL").Scan(&there); err != nil {
		return fmt.Errorf("look for the shop: %w", err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "BEGIN; "+schema+"; COMMIT"); err != nil {
		return fmt.Errorf("fill the shop: %w", err)
	}
	return nil
}

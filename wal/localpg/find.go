package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// MajorMin is the oldest Postgres that Find accepts.
const MajorMin = 14

// ErrUnavailable says that no fitting Postgres is installed and that none can
// be fetched: the platform has no pinned binaries, or the download failed.
var ErrUnavailable = errors.New("no Postgres to be had")

// Progress tells how far a download is. Total is 0 while it is unknown; Done
// equals Total once the archive is being unpacked.
type Progress struct {
	What        string // such as "PostgreSQL 18.6"
	Done, Total int64  // bytes
}

// Finder looks for Postgres binaries.
type Finder struct {
	// CacheDir takes fetched binaries. Empty: DefaultCacheDir.
	CacheDir string
	// Version is the major version wanted, such as "18"; empty: any from
	// MajorMin on, PATH first, then the newest installed.
	Version string
	// Offline forbids fetching.
	Offline bool
	// Repository is the base URL of a Maven repository; empty: Maven Central.
	Repository string
	// Progress, if not nil, is called during a download, from Find's goroutine.
	Progress func(Progress)
}

// Find returns the folder that holds initdb and postgres of the wanted major
// version ("" = any, else "14" to "18"), fetching them into cacheDir where
// they are not installed. The folder and what it needs can be read by any user.
func Find(ctx context.Context, cacheDir, version string) (binDir string, err error) {
	f := Finder{CacheDir: cacheDir, Version: version}
	return f.Find(ctx)
}

// Find is the function Find with all options.
func (f *Finder) Find(ctx context.Context) (binDir string, err error) {
	want := 0
	if f.Version != "" {
		want, err = strconv.Atoi(f.Version)
		if err != nil || want < MajorMin {
			return "", fmt.Errorf("find Postgres %q: want a major version from %d on", f.Version, MajorMin)
		}
	}
	for _, dir := range installed() {
		major, err := Major(ctx, dir)
		if err != nil || major < MajorMin || (want != 0 && major != want) {
			continue // not a usable Postgres: the next candidate may be one
		}
		return dir, nil
	}
	if want == 0 {
		want = newestPin()
	}
	return f.fetch(ctx, want)
}

// DefaultCacheDir is where fetched binaries go: /var/cache/firn for root,
// whose own cache other users can't read, else the user's cache folder.
func DefaultCacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/firn", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	return filepath.Join(dir, "firn"), nil
}

// installed lists the candidate folders, best first: PATH, then the places
// where distributions put every version, newest first.
func installed() []string {
	var dirs []string
	add := func(dir string) {
		for _, name := range []string{"postgres", "initdb"} {
			if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode()&0o111 == 0 {
				return
			}
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		// initdb looks for its share folder beside the real file.
		if p, err = filepath.EvalSymlinks(p); err == nil {
			add(filepath.Dir(p))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",
		"/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin",
		"/usr/local/opt/postgresql@*/bin",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue // only a bad pattern errs, and these are constants
		}
		slices.Sort(found)
		slices.Reverse(found)
		for _, dir := range found {
			add(dir)
		}
	}
	return dirs
}

var versionRE = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// Major asks the postgres in binDir for its major version.
func Major(ctx context.Context, binDir string) (int, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(binDir, "postgres"), "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("ask %s for its version: %w", filepath.Join(binDir, "postgres"), err)
	}
	m := versionRE.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("ask %s for its version: it says %q", filepath.Join(binDir, "postgres"), out)
	}
	major, err := strconv.Atoi(string(m[1]))
	if err != nil {
		return 0, fmt.Errorf("parse version %q: %w", m[1], err)
	}
	return major, nil
}

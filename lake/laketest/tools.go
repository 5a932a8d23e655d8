package laketest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

// Tool is something the tests need that Go's own build does not bring: it is
// fetched or built once, from pins, into a folder of the cache whose name holds
// the hash of those pins, so that a changed pin builds anew and two checkouts
// share what they have in common.
type Tool struct {
	Name string
	// Get says how a person makes the tool available.
	Get string
	// pins gives everything that decides what build makes.
	pins func() ([]string, error)
	// build fills dir, which is empty, and is moved to its final name after.
	build func(ctx context.Context, dir string, progress io.Writer) error
	// exclusive names a lock that builds share, for fetchers that do not
	// tolerate a second one of their kind.
	exclusive string

	once sync.Once
	dir  string
	err  error
}

// CacheDir is where fetched tools live: FIRN_TOOLS, else /var/cache/firn for
// root, else firn in the user's cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("FIRN_TOOLS"); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 {
		return "/var/cache/firn", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder for test tools (FIRN_TOOLS sets it): %w", err)
	}
	return filepath.Join(dir, "firn"), nil
}

// Ensure gives the tool's folder, building it first where it is missing. It
// asks for the work once a process; other processes wait behind a file lock.
// Lines of progress go to progress, nil meaning standard error.
func (tool *Tool) Ensure(ctx context.Context, progress io.Writer) (string, error) {
	tool.once.Do(func() {
		if progress == nil {
			progress = terminal()
		}
		tool.dir, tool.err = tool.ensure(ctx, progress)
		if tool.err != nil {
			tool.err = fmt.Errorf("make %s ready for tests: %w", tool.Name, tool.err)
		}
	})
	return tool.dir, tool.err
}

func (tool *Tool) ensure(ctx context.Context, progress io.Writer) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	pins, err := tool.pins()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(append(pins, runtime.GOOS, runtime.GOARCH), "\x00")))
	name := tool.Name + "-" + hex.EncodeToString(sum[:6])
	dir := filepath.Join(cache, name)
	if exists(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}

	unlock, err := lock(ctx, filepath.Join(cache, name+".lock"), tool.Name, progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(dir) {
		return dir, nil
	}
	if tool.exclusive != "" {
		release, err := lock(ctx, filepath.Join(cache, tool.exclusive+".lock"), tool.exclusive, progress)
		if err != nil {
			return "", err
		}
		defer release()
	}

	// What a killed build left behind is nobody's: the lock is ours.
	half := filepath.Join(cache, ".half-"+name)
	if err := os.RemoveAll(half); err != nil {
		return "", err
	}
	if err := os.Mkdir(half, 0o755); err != nil {
		return "", err
	}
	began := time.Now()
	say(progress, "%s: fetching or building it, once, into %s", tool.Name, dir)
	if err := tool.build(ctx, half, progress); err != nil {
		return "", errors.Join(err, os.RemoveAll(half))
	}
	if err := os.Rename(half, dir); err != nil {
		return "", err
	}
	say(progress, "%s: ready after %.0f s", tool.Name, time.Since(began).Seconds())
	return dir, nil
}

// lock takes a file lock, saying so when that means waiting.
func lock(ctx context.Context, path, what string, progress io.Writer) (func(), error) {
	l := flock.New(path, flock.SetPermissions(0o644))
	ok, err := l.TryLock()
	if err == nil && !ok {
		say(progress, "%s: another process is making it ready; waiting", what)
		_, err = l.TryLockContext(ctx, 300*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = l.Unlock() }, nil // closing the file, which exit does too, is what unlocks
}

// need gives a tool's folder to a test, or ends the test as unavailable does.
func need(t testing.TB, tool *Tool) string {
	t.Helper()
	// The build outlives the test that asked first: others wait for it.
	dir, err := tool.Ensure(context.Background(), nil)
	if err != nil {
		unavailable(t, tool.Name, tool.Get, err)
	}
	return dir
}

// unavailable ends a test that lacks an engine: a failure in CI, where all must
// be there, elsewhere a skip that says what is missing and how to get it.
func unavailable(t testing.TB, name, get string, err error) {
	t.Helper()
	text := fmt.Sprintf("%s is not available: %v\nTo get it: %s", name, err, get)
	if os.Getenv("CI") != "" {
		t.Fatal(text)
	} else {
		t.Skip(text)
	}
}

// Short skips a test under -short, the quick half that starts no engine.
func Short(t testing.TB, why string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: " + why)
	}
}

// pinFile gives the path of a file below testdata/tools and its contents.
func pinFile(parts ...string) (path, text string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", "", err
	}
	path = filepath.Join(append([]string{root, "testdata", "tools"}, parts...)...)
	b, err := os.ReadFile(path)
	return path, string(b), err
}

// moduleRoot finds the checkout from the working folder, which go test sets to
// that of the package under test.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module firn\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the module's root: no go.mod of firn above the working folder")
		}
		dir = up
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

var sayMu sync.Mutex

func say(w io.Writer, format string, args ...any) {
	sayMu.Lock()
	defer sayMu.Unlock()
	fmt.Fprintf(w, "laketest: "+format+"\n", args...)
}

// terminal is where progress is seen: standard error, and the terminal itself
// where there is one, because go test holds back what a package prints.
func terminal() io.Writer {
	if st, err := os.Stderr.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
		return os.Stderr
	}
	if tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0); err == nil {
		return io.MultiWriter(os.Stderr, tty)
	}
	return os.Stderr
}

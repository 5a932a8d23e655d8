package laketest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testTool(name string, build func(dir string) error) *Tool {
	return &Tool{
		Name:  name,
		pins:  func() ([]string, error) { return []string{"1"}, nil },
		build: func(_ context.Context, dir string, _ io.Writer) error { return build(dir) },
	}
}

func TestToolIsBuiltOnceAndWhole(t *testing.T) {
	t.Setenv("FIRN_TOOLS", t.TempDir())
	cache, err := CacheDir()
	require.NoError(t, err)

	// A build that fails leaves nothing that passes for a tool.
	_, err = testTool("x", func(dir string) error {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "part"), nil, 0o644))
		return errors.New("no network")
	}).Ensure(t.Context(), io.Discard)
	require.ErrorContains(t, err, "make x ready for tests: no network")
	left, err := filepath.Glob(filepath.Join(cache, "*x-*"))
	require.NoError(t, err)
	require.Len(t, left, 1, "only the lock: %v", left)

	// What a killed build left is swept, and two that build at once make one.
	require.NoError(t, os.Mkdir(strings.TrimSuffix(left[0], ".lock"), 0o755))
	half := filepath.Join(cache, ".half-"+filepath.Base(strings.TrimSuffix(left[0], ".lock")))
	require.NoError(t, os.Rename(strings.TrimSuffix(left[0], ".lock"), half))
	require.NoError(t, os.WriteFile(filepath.Join(half, "rest"), nil, 0o644))

	var mu sync.Mutex
	builds := 0
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			dir, err := testTool("x", func(dir string) error {
				mu.Lock()
				builds++
				mu.Unlock()
				time.Sleep(50 * time.Millisecond)
				return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o644)
			}).Ensure(context.Background(), io.Discard)
			if err != nil || !exists(filepath.Join(dir, "whole")) || exists(filepath.Join(dir, "rest")) {
				t.Errorf("a tool that is not whole: %s, %v", dir, err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, builds)
}

// fakeTest takes what unavailable does to a test.
type fakeTest struct {
	testing.TB
	fatal, skipped string
}

func (f *fakeTest) Helper()        {}
func (f *fakeTest) Fatal(a ...any) { f.fatal = a[0].(string) }
func (f *fakeTest) Skip(a ...any)  { f.skipped = a[0].(string) }

func TestUnavailable(t *testing.T) {
	t.Setenv("CI", "")
	f := &fakeTest{}
	unavailable(f, "Trino", "install it", errors.New("no JDK"))
	require.Equal(t, "Trino is not available: no JDK\nTo get it: install it", f.skipped)
	require.Empty(t, f.fatal)

	t.Setenv("CI", "true")
	f = &fakeTest{}
	unavailable(f, "Trino", "install it", errors.New("no JDK"))
	require.Contains(t, f.fatal, "no JDK")
	require.Empty(t, f.skipped)
}

func TestUnknownTool(t *testing.T) {
	_, err := Fetch(t.Context(), io.Discard, "oracle")
	require.ErrorContains(t, err, "no such tool")
	_, err = goPin("oracle")
	require.ErrorContains(t, err, "no such line")
}

package localpg

import (
	"archive/tar"
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFetchRefusesWhatIsNotPinned(t *testing.T) {
	if _, ok := platforms[runtime.GOOS+"/"+runtime.GOARCH]; !ok {
		t.Skip("no pins for this platform")
	}
	var answer int
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(answer)
		w.Write([]byte("something else"))
	}))
	defer web.Close()
	dir := t.TempDir()
	var told []Progress
	f := Finder{CacheDir: dir, Repository: web.URL, Progress: func(p Progress) { told = append(told, p) }}

	answer = http.StatusNotFound
	_, err := f.fetch(t.Context(), 15)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "404")

	answer = http.StatusOK
	_, err = f.fetch(t.Context(), 15)
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "SHA-256")
	require.Equal(t, []Progress{{What: "PostgreSQL 15.19", Done: 14, Total: 14}}, told)
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Len(t, left, 1, "only the lock stays")

	web.Close()
	_, err = f.fetch(t.Context(), 15)
	require.ErrorIs(t, err, ErrUnavailable)
	f.Offline = true
	_, err = f.fetch(t.Context(), 15)
	require.ErrorIs(t, err, ErrUnavailable)
}

func TestFetchWaitsForTheLock(t *testing.T) {
	if _, ok := platforms[runtime.GOOS+"/"+runtime.GOARCH]; !ok {
		t.Skip("no pins for this platform")
	}
	block := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-block:
		case <-r.Context().Done():
		}
	}))
	defer web.Close()
	defer close(block)
	f := Finder{CacheDir: t.TempDir(), Repository: web.URL}
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() { _, err := f.fetch(ctx, 15); first <- err }()
	require.Eventually(t, func() bool {
		found, err := filepath.Glob(filepath.Join(f.CacheDir, "*.lock"))
		return err == nil && len(found) == 1
	}, 5*time.Second, time.Millisecond)
	time.Sleep(20 * time.Millisecond)
	short, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	_, err := f.fetch(short, 15)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "lock")
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
}

func TestUntar(t *testing.T) {
	archive := func(headers ...tar.Header) *bytes.Buffer {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.Size = 0
			if h.Typeflag == tar.TypeReg {
				h.Size = 4
			}
			require.NoError(t, w.WriteHeader(&h))
			if h.Size > 0 {
				_, err := w.Write([]byte("data"))
				require.NoError(t, err)
			}
		}
		require.NoError(t, w.Close())
		return &b
	}
	dir := filepath.Join(t.TempDir(), "out")
	require.NoError(t, untar(t.Context(), archive(
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "./bin/postgres", Typeflag: tar.TypeReg, Mode: 0o700},
		tar.Header{Name: "lib/libpq.so.5.18", Typeflag: tar.TypeReg, Mode: 0o600},
		tar.Header{Name: "lib/libpq.so.5", Typeflag: tar.TypeSymlink, Linkname: "libpq.so.5.18"},
		tar.Header{Name: "lib/hard", Typeflag: tar.TypeLink, Linkname: "./lib/libpq.so.5.18"},
	), dir))
	fi, err := os.Stat(filepath.Join(dir, "bin/postgres"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), fi.Mode().Perm())
	for _, name := range []string{"lib/libpq.so.5", "lib/hard"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, "data", string(b))
	}
	for _, hostile := range [][]tar.Header{
		{{Name: "../escaped", Typeflag: tar.TypeReg, Mode: 0o600}},
		{{Name: "away", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "away/escaped", Typeflag: tar.TypeReg, Mode: 0o600}},
	} {
		require.Error(t, untar(t.Context(), archive(hostile...), filepath.Join(t.TempDir(), "out")))
	}
}

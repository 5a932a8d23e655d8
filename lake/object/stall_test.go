package object_test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
	"firn/lake/object"
)

// TestConnectionLostInSilence: neither an upload nor a download waits for ever
// on a connection that nothing passes on any more.
func TestConnectionLostInSilence(t *testing.T) {
	m := laketest.MinIO(t)
	p := laketest.StartProxy(t, m.Host)
	t.Cleanup(object.SetStallLimit(500 * time.Millisecond))
	s := minioStore(t, m, "http://"+p.Addr)
	ctx := t.Context()
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MB, more than any buffer between

	p.Stall(true)
	put := make(chan error, 1)
	go func() { put <- s.Put(ctx, "big", bytes.NewReader(body), int64(len(body))) }()
	time.Sleep(200 * time.Millisecond)
	p.Lose()
	p.Stall(false)
	select {
	case err := <-put:
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("the upload hangs")
	}

	p.Stall(true)
	type got struct {
		data []byte
		err  error
	}
	read := make(chan got, 1)
	go func() {
		data, err := s.Get(ctx, "big")
		read <- got{data, err}
	}()
	time.Sleep(200 * time.Millisecond)
	p.Lose()
	p.Stall(false)
	select {
	case g := <-read:
		require.NoError(t, g.err)
		require.True(t, bytes.Equal(body, g.data))
	case <-time.After(30 * time.Second):
		t.Fatal("the download hangs")
	}

	// An upload that is slow but moves is left alone, however long it takes.
	p.Dribble(4096)
	began := time.Now()
	require.NoError(t, s.Put(ctx, "slow", &slowly{bytes.NewReader(body[:1<<20]), 60 * time.Millisecond}, 1<<20))
	require.Greater(t, time.Since(began), 500*time.Millisecond)
}

// slowly is a body that takes its time.
type slowly struct {
	*bytes.Reader
	pause time.Duration
}

func (s *slowly) Read(p []byte) (int, error) {
	time.Sleep(s.pause)
	return s.Reader.Read(p[:min(len(p), 16<<10)])
}

func (s *slowly) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(s.pause)
	return s.Reader.ReadAt(p, off)
}

// TestUnavailable tells a store that can't answer from one that refuses.
func TestUnavailable(t *testing.T) {
	m := laketest.MinIO(t)
	s := minioStore(t, m, faultyServer(t, m, func(w http.ResponseWriter, r *http.Request) bool {
		return r.Header.Get("If-None-Match") != "" && s3Error(w, http.StatusServiceUnavailable, "SlowDown")
	}))
	require.ErrorIs(t, s.PutIfAbsent(t.Context(), "x", nil), object.ErrUnavailable)
}

package laketest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake/object"
)

// TestStore is what every object.Store must do. open returns an empty one for
// each call.
func TestStore(t *testing.T, open func(t *testing.T) object.Store) {
	for name, test := range map[string]func(*testing.T, object.Store){
		"put and get":       storePutGet,
		"put if absent":     storePutIfAbsent,
		"one winner":        storeRace,
		"missing":           storeMissing,
		"ranges":            storeRanges,
		"listing":           storeListing,
		"paging":            storePaging,
		"delete":            storeDelete,
		"bad keys":          storeBadKeys,
		"URIs":              storeURIs,
		"clock":             storeClock,
		"ended context":     storeEnded,
		"large object":      storeLarge,
		"probe":             storeProbe,
		"odd names":         storeOddNames,
		"body is not ended": storeBody,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func put(t *testing.T, s object.Store, key, body string) {
	t.Helper()
	require.NoError(t, s.Put(t.Context(), key, strings.NewReader(body), int64(len(body))))
}

func get(t *testing.T, s object.Store, key string) string {
	t.Helper()
	data, err := s.Get(t.Context(), key)
	require.NoError(t, err)
	return string(data)
}

func storePutGet(t *testing.T, s object.Store) {
	put(t, s, "a/b/one.json", "1")
	put(t, s, "a/b/empty", "")
	require.Equal(t, "1", get(t, s, "a/b/one.json"))
	require.Equal(t, "", get(t, s, "a/b/empty"))
	put(t, s, "a/b/one.json", "longer")
	require.Equal(t, "longer", get(t, s, "a/b/one.json"), "Put replaces")
	info, err := s.Head(t.Context(), "a/b/one.json")
	require.NoError(t, err)
	require.Equal(t, int64(6), info.Size)
	require.Equal(t, "a/b/one.json", info.Key)
	require.WithinDuration(t, time.Now(), info.Modified, time.Minute)
}

func storePutIfAbsent(t *testing.T, s object.Store) {
	ctx := t.Context()
	require.NoError(t, s.PutIfAbsent(ctx, "log/1", []byte("first")))
	require.ErrorIs(t, s.PutIfAbsent(ctx, "log/1", []byte("second")), fs.ErrExist)
	require.Equal(t, "first", get(t, s, "log/1"))
	require.NoError(t, s.PutIfAbsent(ctx, "log/2", nil))
	require.ErrorIs(t, s.PutIfAbsent(ctx, "log/2", []byte("x")), fs.ErrExist, "an empty object takes its name too")
	require.NoError(t, s.Delete(ctx, "log/1"))
	require.NoError(t, s.PutIfAbsent(ctx, "log/1", []byte("third")), "a deleted name is free again")
}

func storeRace(t *testing.T, s object.Store) {
	for round := range 5 {
		key := fmt.Sprintf("race/%d", round)
		var mu sync.Mutex
		var winners []string
		var others []error
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				body := fmt.Sprint(i)
				err := s.PutIfAbsent(t.Context(), key, []byte(body))
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					winners = append(winners, body)
				} else if !errors.Is(err, fs.ErrExist) {
					others = append(others, err)
				}
			})
		}
		all.Wait()
		require.Empty(t, others)
		require.Len(t, winners, 1)
		require.Equal(t, winners[0], get(t, s, key))
	}
}

func storeMissing(t *testing.T, s object.Store) {
	ctx := t.Context()
	put(t, s, "dir/file", "x")
	for _, key := range []string{"none", "dir/none", "none/none"} {
		_, err := s.Get(ctx, key)
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = s.GetRange(ctx, key, 0, 1)
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = s.OpenReader(ctx, key)
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = s.Head(ctx, key)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	_, err := s.Head(ctx, "dir")
	require.ErrorIs(t, err, fs.ErrNotExist, "what others lie under is no object")
	_, err = s.OpenReader(ctx, "dir")
	require.ErrorIs(t, err, fs.ErrNotExist)
	keys, err := s.Keys(ctx, "none/", "", 0)
	require.NoError(t, err)
	require.Empty(t, keys)
}

func storeRanges(t *testing.T, s object.Store) {
	ctx := t.Context()
	put(t, s, "r", "0123456789")
	for _, c := range []struct {
		off, n int64
		want   string
	}{{0, 4, "0123"}, {6, 4, "6789"}, {8, 10, "89"}, {3, 0, ""}, {10, 1, ""}, {99, 1, ""}} {
		data, err := s.GetRange(ctx, "r", c.off, c.n)
		require.NoError(t, err)
		require.Equal(t, c.want, string(data), "%d bytes at %d", c.n, c.off)
	}
	_, err := s.GetRange(ctx, "r", -1, 1)
	require.ErrorIs(t, err, fs.ErrInvalid)

	r, err := s.OpenReader(ctx, "r")
	require.NoError(t, err)
	require.Equal(t, int64(10), r.Size())
	buf := make([]byte, 4)
	n, err := r.ReadAt(buf, 2)
	require.NoError(t, err)
	require.Equal(t, "2345", string(buf[:n]))
	n, err = r.ReadAt(buf, 8)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, "89", string(buf[:n]))
	_, err = r.ReadAt(buf, 10)
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, r.Close())
}

func storeListing(t *testing.T, s object.Store) {
	ctx := t.Context()
	// '-' and '.' sort before '/', so a walk by directories gets this wrong.
	want := []string{"a", "b-c", "b.d/x", "b/a", "b/b/c", "b0", "c"}
	for _, key := range []string{"c", "b/b/c", "b-c", "a", "b0", "b/a", "b.d/x"} {
		put(t, s, key, key)
	}
	list := func(prefix, after string, limit int) []string {
		keys, err := s.Keys(ctx, prefix, after, limit)
		require.NoError(t, err)
		infos, err := s.List(ctx, prefix, after, limit)
		require.NoError(t, err)
		require.Len(t, infos, len(keys))
		for i, info := range infos {
			require.Equal(t, keys[i], info.Key)
			require.Equal(t, int64(len(info.Key)), info.Size)
			require.WithinDuration(t, time.Now(), info.Modified, time.Minute)
		}
		return keys
	}
	require.Equal(t, want, list("", "", 0))
	require.Equal(t, want[:2], list("", "", 2))
	require.Equal(t, want[3:5], list("", "b.d/x", 2))
	require.Equal(t, want[3:5], list("b/", "", 0))
	require.Equal(t, want[1:6], list("b", "", 0), "a prefix may end within a name")
	require.Equal(t, want[4:5], list("b/b", "", 0))
	require.Equal(t, want[4:5], list("b/", "b/a", 0))
	require.Equal(t, want[5:], list("", "b/zzz", 0), "startAfter need not be there")
	require.Empty(t, list("", "c", 0))
	require.Equal(t, want[:1], list("", "", 1))
}

func storePaging(t *testing.T, s object.Store) {
	const n = 1203 // more than S3 gives at once
	ctx := t.Context()
	var want []string
	var all sync.WaitGroup
	next := make(chan string)
	errs := make(chan error, 8)
	for range 8 {
		all.Go(func() {
			for key := range next {
				if err := s.PutIfAbsent(ctx, key, []byte("x")); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	for i := range n {
		want = append(want, fmt.Sprintf("p/%06d", i))
	}
	for _, i := range rand.Perm(n) {
		select {
		case next <- want[i]:
		case err := <-errs:
			t.Fatal(err)
		}
	}
	close(next)
	all.Wait()
	got, err := s.Keys(ctx, "p/", "", 0)
	require.NoError(t, err)
	require.Equal(t, want, got)
	got, err = s.Keys(ctx, "p/", "", 1100)
	require.NoError(t, err)
	require.Equal(t, want[:1100], got)
	got, err = s.Keys(ctx, "p/", want[700], 3)
	require.NoError(t, err)
	require.Equal(t, want[701:704], got)
	require.NoError(t, s.Delete(ctx, want...))
	got, err = s.Keys(ctx, "p/", "", 0)
	require.NoError(t, err)
	require.Empty(t, got)
}

func storeDelete(t *testing.T, s object.Store) {
	ctx := t.Context()
	put(t, s, "d/1", "x")
	put(t, s, "d/2", "x")
	require.NoError(t, s.Delete(ctx))
	require.NoError(t, s.Delete(ctx, "d/none"))
	require.NoError(t, s.Delete(ctx, "d/1", "d/none", "d/2"))
	keys, err := s.Keys(ctx, "d/", "", 0)
	require.NoError(t, err)
	require.Empty(t, keys)
	put(t, s, "d/1", "again")
	require.Equal(t, "again", get(t, s, "d/1"))
}

func storeBadKeys(t *testing.T, s object.Store) {
	for _, key := range []string{"", ".", "/a", "a/", "a//b", "../a", "a/../b", "a/./b"} {
		require.ErrorIs(t, s.Put(t.Context(), key, strings.NewReader("x"), 1), fs.ErrInvalid, "%q", key)
		require.ErrorIs(t, s.PutIfAbsent(t.Context(), key, []byte("x")), fs.ErrInvalid, "%q", key)
		_, err := s.Get(t.Context(), key)
		require.ErrorIs(t, err, fs.ErrInvalid, "%q", key)
		require.ErrorIs(t, s.Delete(t.Context(), key), fs.ErrInvalid, "%q", key)
	}
}

func storeURIs(t *testing.T, s object.Store) {
	uri := s.URI("public/orders/data/1.parquet")
	require.Regexp(t, `^[a-z0-9]+://.*/public/orders/data/1\.parquet$`, uri)
	key, ok := s.Key(uri)
	require.True(t, ok)
	require.Equal(t, "public/orders/data/1.parquet", key)
	for _, outside := range []string{"", "s3://elsewhere/x", "file:///elsewhere/x", strings.TrimSuffix(s.URI("x"), "x"), s.URI("../x"), s.URI("a/../../x")} {
		_, ok := s.Key(outside)
		require.False(t, ok, outside)
	}
}

func storeClock(t *testing.T, s object.Store) {
	put(t, s, "now", "x")
	info, err := s.Head(t.Context(), "now")
	require.NoError(t, err)
	now, err := s.Now(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, now, info.Modified, 5*time.Second)
	keys, err := s.Keys(t.Context(), "", "", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"now"}, keys, "reading the clock leaves nothing behind")
}

func storeEnded(t *testing.T, s object.Store) {
	put(t, s, "x", "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Put(ctx, "y", strings.NewReader("y"), 1), context.Canceled)
	require.ErrorIs(t, s.PutIfAbsent(ctx, "y", []byte("y")), context.Canceled)
	_, err := s.Get(ctx, "x")
	require.ErrorIs(t, err, context.Canceled)
	_, err = s.Keys(ctx, "", "", 0)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, s.Delete(ctx, "x"), context.Canceled)
	require.Equal(t, "x", get(t, s, "x"))
}

func storeLarge(t *testing.T, s object.Store) {
	body := make([]byte, 33<<20+7) // three parts
	for i := range body {
		body[i] = byte(i * 2654435761 >> 13)
	}
	require.NoError(t, s.Put(t.Context(), "large", bytes.NewReader(body), int64(len(body))))
	data, err := s.Get(t.Context(), "large")
	require.NoError(t, err)
	require.True(t, bytes.Equal(body, data))
	data, err = s.GetRange(t.Context(), "large", 16<<20-3, 6)
	require.NoError(t, err)
	require.Equal(t, body[16<<20-3:16<<20+3], data)
}

func storeProbe(t *testing.T, s object.Store) {
	require.NoError(t, object.Probe(t.Context(), s))
	keys, err := s.Keys(t.Context(), "", "", 0)
	require.NoError(t, err)
	require.Empty(t, keys)
}

func storeOddNames(t *testing.T, s object.Store) {
	odd := []string{"t/with space", "t/ünïcode/表", "t/a+b&c=d", "t/quote'\"", "t/p%41rcent", "t/" + strings.Repeat("n", 200)}
	slices.Sort(odd)
	for _, key := range odd {
		put(t, s, key, key)
		require.Equal(t, key, get(t, s, key))
	}
	keys, err := s.Keys(t.Context(), "t/", "", 0)
	require.NoError(t, err)
	require.Equal(t, odd, keys)
	require.NoError(t, s.Delete(t.Context(), odd...))
	keys, err = s.Keys(t.Context(), "t/", "", 0)
	require.NoError(t, err)
	require.Empty(t, keys)
}

// closing fails the test when a store closes what it was lent.
type closing struct {
	*bytes.Reader
	t *testing.T
}

func (c closing) Close() error {
	c.t.Error("the store closed its caller's body")
	return nil
}

func storeBody(t *testing.T, s object.Store) {
	body := closing{bytes.NewReader([]byte("content")), t}
	_, err := body.Seek(3, io.SeekStart)
	require.NoError(t, err)
	require.NoError(t, s.Put(t.Context(), "b", body, 7), "it starts at the start")
	require.Equal(t, "content", get(t, s, "b"))
	require.Error(t, s.Put(t.Context(), "short", body, 8), "fewer bytes than promised")
	_, err = s.Get(t.Context(), "short")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

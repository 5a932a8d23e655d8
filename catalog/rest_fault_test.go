package catalog

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// restFaults fails chosen operations of a memory store.
type restFaults struct {
	*restMemory
	put, get, publish, list atomic.Bool
}

var errRestFault = errors.New("the store says no")

func (f *restFaults) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	if f.put.Load() {
		return errRestFault
	}
	return f.restMemory.Put(ctx, key, body, size)
}

func (f *restFaults) Get(ctx context.Context, key string) ([]byte, error) {
	if f.get.Load() && !strings.HasPrefix(key, LogPrefix) || f.publish.Load() && strings.HasPrefix(key, LogPrefix) {
		return nil, errRestFault
	}
	return f.restMemory.Get(ctx, key)
}

func (f *restFaults) PutIfAbsent(ctx context.Context, key string, body []byte) error {
	if f.publish.Load() {
		return errRestFault
	}
	return f.restMemory.PutIfAbsent(ctx, key, body)
}

func (f *restFaults) Keys(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if f.list.Load() {
		return nil, errRestFault
	}
	return f.restMemory.Keys(ctx, prefix, after, limit)
}

// A client must be able to tell "nothing happened" from "nobody knows": it
// deletes its files in the first case only.
func TestRestStoreFaults(t *testing.T) {
	f := &restFaults{restMemory: newRestMemory()}
	s := newRestServer(t, f, ServerOptions{})
	s.makeTable("t")
	set := restCommit(map[string]any{"action": "set-properties", "updates": map[string]string{"a": "b"}})
	entry := s.log.Head().Number

	f.put.Store(true)
	a := s.do("POST", "/v1/namespaces/a/tables/t", set)
	require.Equal(t, 503, a.Status)
	require.Equal(t, "ServiceUnavailableException", a.errorType(t))
	require.NotContains(t, string(a.Body), errRestFault.Error(), "the store's own words are for the log")
	f.put.Store(false)

	f.list.Store(true)
	require.Equal(t, 503, s.do("POST", "/v1/namespaces/a/tables/t", set).Status)
	f.list.Store(false)
	require.Equal(t, entry, s.log.Head().Number)

	// The log's put and the question after it both fail: unknown.
	clock := SystemClock()
	clock.Sleep = func(context.Context, time.Duration) error { return nil }
	log, err := OpenLog(t.Context(), f, LogOptions{Clock: clock})
	require.NoError(t, err)
	s.http.Config.Handler = NewServer(log, f, ServerOptions{})
	f.publish.Store(true)
	a = s.do("POST", "/v1/namespaces/a/tables/t", set)
	require.Equal(t, 500, a.Status)
	require.Equal(t, "CommitStateUnknownException", a.errorType(t))
	f.publish.Store(false)

	// A metadata file that is gone is no client's fault.
	fresh := newRestServer(t, f, ServerOptions{})
	f.get.Store(true)
	require.Equal(t, 500, fresh.do("GET", "/v1/namespaces/a/tables/t", nil).Status)
	f.get.Store(false)
	require.Equal(t, 200, fresh.do("GET", "/v1/namespaces/a/tables/t", nil).Status)
}

// A client that hangs up must not leave a commit half decided.
func TestRestClientHangsUp(t *testing.T) {
	s := newRestServer(t, nil, ServerOptions{})
	s.makeTable("t")
	srv := NewServer(s.log, s.store, ServerOptions{}).(*server)
	ctx, cancel := context.WithCancel(t.Context())
	c := &call{r: newRestRequest(t, "POST", "/v1/namespaces")}
	planned := 0
	st, err := srv.change(ctx, c, func(context.Context, *State) (install, error) {
		planned++
		cancel() // during the first run, before the log's commit
		return func(next *State) { next.PutNamespace([]string{"b"}, nil) }, nil
	})
	require.NoError(t, err)
	require.Equal(t, 2, planned)
	_, ok := st.Namespace([]string{"b"})
	require.True(t, ok)
}

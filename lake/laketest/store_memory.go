package laketest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"firn/lake/object"
)

// MemoryStore is a warehouse in memory, for tests that need thousands of
// objects. It passes TestStore as the real ones do.
type MemoryStore struct {
	mu      sync.RWMutex
	objects map[string]memoryObject
}

type memoryObject struct {
	data     []byte
	modified time.Time
}

var _ object.Store = (*MemoryStore)(nil)

const memoryRoot = "memory://warehouse/"

// NewMemoryStore returns an empty one.
func NewMemoryStore() *MemoryStore { return &MemoryStore{objects: map[string]memoryObject{}} }

// Put implements object.Store.
func (m *MemoryStore) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	if err := m.ready(ctx, key); err != nil {
		return err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return err
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(body, data); err != nil {
		return fmt.Errorf("put %s: %w", m.URI(key), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[key] = memoryObject{data, time.Now()}
	return nil
}

// PutIfAbsent implements object.Store.
func (m *MemoryStore) PutIfAbsent(ctx context.Context, key string, body []byte) error {
	if err := m.ready(ctx, key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.objects[key]; taken {
		return fmt.Errorf("put %s: %w", m.URI(key), fs.ErrExist)
	}
	m.objects[key] = memoryObject{bytes.Clone(body), time.Now()}
	return nil
}

// Get implements object.Store.
func (m *MemoryStore) Get(ctx context.Context, key string) ([]byte, error) {
	o, err := m.object(ctx, key)
	return append([]byte{}, o.data...), err
}

// GetRange implements object.Store.
func (m *MemoryStore) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	o, err := m.object(ctx, key)
	if err == nil && (off < 0 || n < 0) {
		err = fmt.Errorf("get %s: %w", m.URI(key), fs.ErrInvalid)
	}
	if err != nil {
		return nil, err
	}
	from := min(off, int64(len(o.data)))
	return append([]byte{}, o.data[from:min(from+n, int64(len(o.data)))]...), nil
}

type memoryReader struct{ *bytes.Reader }

func (memoryReader) Close() error { return nil }

// OpenReader implements object.Store.
func (m *MemoryStore) OpenReader(ctx context.Context, key string) (object.Reader, error) {
	o, err := m.object(ctx, key)
	if err != nil {
		return nil, err
	}
	return memoryReader{bytes.NewReader(o.data)}, nil
}

// Head implements object.Store.
func (m *MemoryStore) Head(ctx context.Context, key string) (object.Info, error) {
	o, err := m.object(ctx, key)
	if err != nil {
		return object.Info{}, err
	}
	return object.Info{Key: key, Size: int64(len(o.data)), Modified: o.modified}, nil
}

// List implements object.Store.
func (m *MemoryStore) List(ctx context.Context, prefix, startAfter string, limit int) ([]object.Info, error) {
	keys, err := m.Keys(ctx, prefix, startAfter, limit)
	if err != nil {
		return nil, err
	}
	var out []object.Info
	for _, k := range keys {
		if info, err := m.Head(ctx, k); err == nil {
			out = append(out, info)
		}
	}
	return out, nil
}

// Keys implements object.Store.
func (m *MemoryStore) Keys(ctx context.Context, prefix, startAfter string, limit int) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var keys []string
	for k := range maps.Keys(m.objects) {
		if strings.HasPrefix(k, prefix) && k > startAfter {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if limit > 0 && len(keys) > limit {
		keys = keys[:limit]
	}
	return keys, nil
}

// Delete implements object.Store.
func (m *MemoryStore) Delete(ctx context.Context, keys ...string) error {
	for _, k := range keys {
		if err := m.ready(ctx, k); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		delete(m.objects, k)
	}
	return nil
}

// URI implements object.Store.
func (m *MemoryStore) URI(key string) string { return memoryRoot + key }

// Key implements object.Store.
func (m *MemoryStore) Key(uri string) (string, bool) {
	key, ok := strings.CutPrefix(uri, memoryRoot)
	return key, ok && fs.ValidPath(key) && key != "."
}

// Now implements object.Store.
func (m *MemoryStore) Now(ctx context.Context) (time.Time, error) { return time.Now(), ctx.Err() }

func (m *MemoryStore) object(ctx context.Context, key string) (memoryObject, error) {
	if err := m.ready(ctx, key); err != nil {
		return memoryObject{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.objects[key]
	if !ok {
		return o, fmt.Errorf("get %s: %w", m.URI(key), fs.ErrNotExist)
	}
	return o, nil
}

func (m *MemoryStore) ready(ctx context.Context, key string) error {
	if !fs.ValidPath(key) || key == "." {
		return fmt.Errorf("object key %q: %w", key, fs.ErrInvalid)
	}
	return ctx.Err()
}

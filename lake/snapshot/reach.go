package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"

	"github.com/apache/iceberg-go"
	"golang.org/x/sync/errgroup"
)

// Reach tells which objects metadata files need. It remembers what they and
// their manifests say, for they never change: a second round reads only what is
// new. Its methods may be called from any goroutine.
type Reach struct {
	store Store
	hash  func(key string) uint64

	mu   sync.Mutex
	now  map[string]*reached // asked for in this round, by URI
	last map[string]*reached // in the one before
}

// reached is what one immutable file names.
type reached struct {
	name  string
	once  sync.Once
	err   error
	files []uint64   // hashes of keys, its own first
	lists []string   // a metadata file's: URIs of manifest lists
	parts []*reached // a list's: manifests
}

// ErrUnknown: a file is not there (then it is fs.ErrNotExist too), or can't be made
// sense of, so that it is not known what it names. All the rest has been told.
var ErrUnknown = errors.New("what it names is not known")

// read gets what r knows a file by.
func (r *Reach) read(ctx context.Context, uri string) ([]byte, error) {
	b, err := get(ctx, r.store, uri)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unknown(err)
	}
	return b, err
}

func unknown(err error) error { return fmt.Errorf("%w: %w", ErrUnknown, err) }

// NewReach begins with nothing known. hash is of the keys that Visit gives out.
func NewReach(store Store, hash func(key string) uint64) *Reach {
	return &Reach{store: store, hash: hash, now: map[string]*reached{}}
}

// Round begins a round; what the last one did not ask for is forgotten.
func (r *Reach) Round() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.now = r.now, map[string]*reached{}
}

// learn returns what is known of a file, read if it is not yet.
func (r *Reach) learn(name string, read func(*reached) error) (*reached, error) {
	r.mu.Lock()
	x := r.now[name]
	if x == nil {
		if x = r.last[name]; x == nil || x.err != nil {
			x = &reached{name: name}
		}
		r.now[name] = x
	}
	r.mu.Unlock()
	x.once.Do(func() { x.err = read(x) })
	return x, x.err
}

// Visit calls fn with the hash of the key of each object that a table's metadata
// file needs, its own included: of the current snapshot, or with history of all
// that it lists. What lies outside the warehouse is left out. What a file names
// that is not there must not be taken for what nobody needs: see ErrUnknown. fn
// may be called from several goroutines, and more than once for an object.
func (r *Reach) Visit(ctx context.Context, metadataURI string, history bool, fn func(hash uint64)) error {
	if err := r.visit(ctx, metadataURI, history, fn); err != nil {
		return fmt.Errorf("find what %s needs: %w", metadataURI, err)
	}
	return nil
}

func (r *Reach) visit(ctx context.Context, metadataURI string, history bool, fn func(hash uint64)) error {
	name := metadataURI
	if history {
		name += " with history"
	}
	m, err := r.learn(name, func(x *reached) error { return r.readMetadata(ctx, x, metadataURI, history) })
	if err != nil && !errors.Is(err, ErrUnknown) {
		return err
	}
	r.give(m, fn)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(loadsAtOnce)
	unknowns := make([]error, len(m.lists), len(m.lists)+1)
	for i, uri := range m.lists {
		g.Go(func() error {
			l, err := r.learn(uri, func(x *reached) error { return r.readList(ctx, x, uri) })
			if errors.Is(err, ErrUnknown) {
				unknowns[i] = err
			} else if err != nil {
				return err
			}
			r.give(l, fn)
			r.mu.Lock()
			for _, part := range l.parts {
				r.now[part.name] = part
			}
			r.mu.Unlock()
			for _, part := range l.parts {
				r.give(part, fn)
			}
			return nil
		})
	}
	if failed := g.Wait(); failed != nil {
		return failed
	}
	return cmp.Or(append(unknowns, err)...) // one stands for all: a table may miss a thousand files
}

func (r *Reach) give(x *reached, fn func(uint64)) {
	for _, h := range x.files {
		fn(h)
	}
}

// add notes a file, if it lies in the warehouse.
func (r *Reach) add(x *reached, uri string) bool {
	key, ok := r.store.Key(uri)
	if ok {
		x.files = append(x.files, r.hash(key))
	}
	return ok
}

func (r *Reach) readMetadata(ctx context.Context, x *reached, uri string, history bool) error {
	if !r.add(x, uri) {
		return nil
	}
	b, err := r.read(ctx, uri)
	if err != nil {
		return err
	}
	m, err := parseMetadata(b)
	if err != nil {
		return unknown(err)
	}
	for _, s := range m.snapshots {
		if !history && s.id != m.current {
			continue
		}
		var doc struct {
			List string `json:"manifest-list"`
		}
		if err := json.Unmarshal(s.doc, &doc); err != nil {
			return unknown(fmt.Errorf("snapshot %d: %w", s.id, err))
		}
		if doc.List == "" {
			return unknown(fmt.Errorf("snapshot %d has no manifest list", s.id))
		}
		x.lists = append(x.lists, doc.List)
	}
	for _, key := range []string{"statistics", "partition-statistics"} {
		var docs []struct {
			Path string `json:"statistics-path"`
		}
		if raw, ok := m.rest[key]; ok {
			if err := json.Unmarshal(raw, &docs); err != nil {
				return unknown(fmt.Errorf("%s: %w", key, err))
			}
		}
		for _, d := range docs {
			r.add(x, d.Path)
		}
	}
	return nil
}

func (r *Reach) readList(ctx context.Context, x *reached, uri string) error {
	if !r.add(x, uri) {
		return nil
	}
	b, err := r.read(ctx, uri)
	if err != nil {
		return err
	}
	manifests, err := iceberg.ReadManifestList(bytes.NewReader(b))
	if err != nil {
		return unknown(fmt.Errorf("read %s: %w", uri, err))
	}
	var unknowns []error
	for _, m := range manifests {
		part, err := r.learn(m.FilePath(), func(x *reached) error { return r.readManifest(ctx, x, m) })
		if errors.Is(err, ErrUnknown) {
			unknowns = append(unknowns, err)
		} else if err != nil {
			return err
		}
		x.parts = append(x.parts, part)
	}
	return cmp.Or(unknowns...)
}

func (r *Reach) readManifest(ctx context.Context, x *reached, m iceberg.ManifestFile) error {
	if !r.add(x, m.FilePath()) {
		return nil
	}
	b, err := r.read(ctx, m.FilePath())
	if err != nil {
		return err
	}
	entries, err := iceberg.ReadManifest(m, bytes.NewReader(b), true)
	if err != nil {
		return unknown(fmt.Errorf("read %s: %w", m.FilePath(), err))
	}
	for _, e := range entries {
		r.add(x, e.DataFile().FilePath())
	}
	return nil
}

// Pending are the keys of files that are on their way to the store, or there,
// and that no snapshot names yet. Tables share it with whoever removes files:
// both are in the one process that owns the lake, so it needs no object on the
// store (PROTOCOL §13). A nil Pending holds nothing.
//
// A key is pending until a snapshot names it, or until nothing can be reached any
// more that could make one do so: a load that failed, a rewrite that came too
// late, an epoch of a session that ended. It is the garbage collector that finds
// that out, for it knows all ways by which a file is let go.
type Pending struct {
	mu   sync.Mutex
	keys map[string]bool
}

// NewPending holds nothing.
func NewPending() *Pending { return &Pending{keys: map[string]bool{}} }

// Keys lists them.
func (p *Pending) Keys() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]string, 0, len(p.keys))
	for k := range p.keys {
		out = append(out, k)
	}
	return out
}

// hold adds keys until by has gone, or they are removed.
func hold[T any](p *Pending, by *T, keys ...string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	for _, k := range keys {
		p.keys[k] = true
	}
	p.mu.Unlock()
	runtime.AddCleanup(by, func(keys []string) {
		for _, k := range keys {
			p.remove(k)
		}
	}, keys)
}

func (p *Pending) remove(key string) {
	if p != nil {
		p.mu.Lock()
		delete(p.keys, key)
		p.mu.Unlock()
	}
}

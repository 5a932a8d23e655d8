package catalog

import (
	"bytes"
	"container/list"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/iceberg-go/table"
	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"
	"github.com/klauspost/compress/gzip"
)

// metadataFile is a table's metadata file, as bytes and parsed. It is never
// changed: builders copy what they alter.
type metadataFile struct {
	URI  string
	JSON []byte
	Meta table.Metadata
}

// metadataCache keeps the metadata files used last, within a budget of their
// JSON's bytes.
type metadataCache struct {
	mu    sync.Mutex
	max   int
	bytes int
	order *list.List // of *metadataFile, the latest used first
	byURI map[string]*list.Element
}

func newMetadataCache(bytesMax int) *metadataCache {
	return &metadataCache{max: bytesMax, order: list.New(), byURI: map[string]*list.Element{}}
}

func (c *metadataCache) get(uri string) *metadataFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byURI[uri]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*metadataFile)
}

func (c *metadataCache) put(f *metadataFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byURI[f.URI]; ok || len(f.JSON) > c.max {
		return
	}
	c.byURI[f.URI] = c.order.PushFront(f)
	c.bytes += len(f.JSON)
	for c.bytes > c.max {
		last := c.order.Back()
		old := c.order.Remove(last).(*metadataFile)
		delete(c.byURI, old.URI)
		c.bytes -= len(old.JSON)
	}
}

// readMetadata returns the metadata file that a table's pointer names.
func (s *server) readMetadata(ctx context.Context, uri string) (*metadataFile, error) {
	if f := s.cache.get(uri); f != nil {
		return f, nil
	}
	data, err := s.readObject(ctx, uri)
	if err != nil {
		return nil, err
	}
	f, err := parseMetadata(uri, data)
	if err != nil {
		return nil, fmt.Errorf("read metadata %s: %w", uri, err)
	}
	s.cache.put(f)
	return f, nil
}

// readObject reads a metadata file, which others may have compressed.
func (s *server) readObject(ctx context.Context, uri string) ([]byte, error) {
	key, err := s.keyOf(uri)
	if err != nil {
		return nil, fmt.Errorf("read metadata %s: %w", uri, err)
	}
	data, err := s.store.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("read metadata %s: %w", uri, err)
	}
	if !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return data, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("uncompress metadata %s: %w", uri, err)
	}
	defer z.Close()
	data, err = io.ReadAll(io.LimitReader(z, metadataBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("uncompress metadata %s: %w", uri, err)
	}
	if len(data) > metadataBytesMax {
		return nil, fmt.Errorf("uncompress metadata %s: larger than %d bytes", uri, metadataBytesMax)
	}
	return data, nil
}

func parseMetadata(uri string, data []byte) (*metadataFile, error) {
	f := &metadataFile{URI: uri, JSON: data}
	err := guard(func() error {
		meta, err := table.ParseMetadataBytes(data)
		f.Meta = meta
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// encodeMetadata makes a table's next metadata file, yet without a name. What
// is returned is parsed from the bytes: the built value shares parts with the
// request, and what readers will see is the bytes. fields replace top-level
// fields of what was built.
func encodeMetadata(meta table.Metadata, fields map[string]any) (*metadataFile, error) {
	var data []byte
	err := guard(func() (err error) {
		data, err = json.Marshal(meta)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("encode table metadata: %w", err)
	}
	if len(fields) > 0 {
		if data, err = withFields(data, fields); err != nil {
			return nil, err
		}
	}
	f, err := parseMetadata("", data)
	if err != nil {
		return nil, badRequest("the commit leads to invalid table metadata: %v", err)
	}
	return f, nil
}

// withFields sets top-level fields of a JSON object.
func withFields(data []byte, fields map[string]any) ([]byte, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil {
		return nil, fmt.Errorf("edit table metadata: %w", err)
	}
	for name, v := range fields {
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("set %s in table metadata: %w", name, err)
		}
		object[name] = raw
	}
	data, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("edit table metadata: %w", err)
	}
	return data, nil
}

// putObject writes an object whose name is new.
func (s *server) putObject(ctx context.Context, uri string, data []byte) error {
	key, err := s.keyOf(uri)
	if err != nil {
		return err
	}
	if err := s.store.Put(ctx, key, bytes.NewReader(data), int64(len(data))); err != nil {
		return unavailable("write the metadata file", err)
	}
	return nil
}

// nextMetadataURI names the file after previous: NNNNN-<uuid>.metadata.json.
func nextMetadataURI(location, previous string) string {
	number := 0
	if previous != "" {
		name := strings.TrimPrefix(path.Base(previous), "v")
		digits := name[:len(name)-len(strings.TrimLeft(name, "0123456789"))]
		if n, err := strconv.Atoi(digits); err == nil && n < 1<<30 {
			number = n + 1
		}
	}
	return fmt.Sprintf("%s/metadata/%05d-%s.metadata.json", location, number, uuid.NewString())
}

// refsOnly is the metadata without the snapshots that no branch or tag names.
func refsOnly(f *metadataFile) ([]byte, error) {
	named := map[int64]bool{}
	for _, ref := range f.Meta.Refs() {
		named[ref.SnapshotID] = true
	}
	if cur := f.Meta.CurrentSnapshot(); cur != nil {
		named[cur.SnapshotID] = true
	}
	all := f.Meta.Snapshots()
	snapshots := make([]table.Snapshot, 0, len(named))
	for _, sn := range all {
		if named[sn.SnapshotID] {
			snapshots = append(snapshots, sn)
		}
	}
	if len(snapshots) == len(all) {
		return f.JSON, nil
	}
	return withFields(f.JSON, map[string]any{"snapshots": snapshots})
}

// configTag and tableTag make a table's ETag: it names the metadata file, the
// form it is given in and what goes with it.
func configTag(config map[string]string) string {
	data, err := json.Marshal(config) // keys come sorted
	if err != nil {
		panic(err) // strings always marshal
	}
	return strconv.FormatUint(xxhash.Sum64(data), 36)
}

func (s *server) tableTag(uri, mode string) string {
	h := xxhash.New()
	_, _ = h.WriteString(uri + "\x00" + mode + "\x00" + s.etag) // never fails
	return `W/"` + hex.EncodeToString(h.Sum(nil)) + `"`
}

package object

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	iceio "github.com/apache/iceberg-go/io"
)

// FileIO lets iceberg-go read and write a store's objects by URI, under ctx.
// Only what lies in s can be reached by it.
func FileIO(ctx context.Context, s Store) iceio.IO { return &fileIO{ctx: ctx, store: s} }

// RegisterFileIO makes iceberg-go use this package for s3:// and s3a://. o
// supplies what a table's properties (s3.endpoint, s3.region,
// s3.access-key-id …) don't. Local paths stay with iceberg-go's own, which is
// good for reading; to write them durably use FileIO. Only the first call has
// an effect.
func RegisterFileIO(o Options) {
	registerOnce.Do(func() {
		c := &buckets{options: o, open: map[string]*S3{}}
		for _, scheme := range []string{"s3", "s3a"} {
			iceio.Register(scheme, c.fileIO)
		}
	})
}

var registerOnce sync.Once

// buckets keeps one client per bucket and account: iceberg-go asks for a
// FileIO with each table it loads.
type buckets struct {
	options Options
	mu      sync.Mutex
	open    map[string]*S3
}

func (b *buckets) fileIO(ctx context.Context, location *url.URL, props map[string]string) (iceio.IO, error) {
	o := b.options
	o.Endpoint = cmp.Or(props["s3.endpoint"], o.Endpoint)
	o.Region = cmp.Or(props["s3.region"], props["client.region"], o.Region)
	o.PathStyle = o.PathStyle || props["s3.path-style-access"] == "true" || props["s3.force-virtual-addressing"] == "false"
	if id := props["s3.access-key-id"]; id != "" {
		o.AccessKeyID, o.SecretAccessKey, o.SessionToken = id, props["s3.secret-access-key"], props["s3.session-token"]
	}
	key := fmt.Sprintf("%q %+v", location.Host, o)
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.open[key]
	if !ok {
		var err error
		if s, err = openS3(ctx, location.Host, "", o); err != nil {
			return nil, err
		}
		b.open[key] = s
	}
	return FileIO(ctx, s), nil
}

type fileIO struct {
	ctx   context.Context // iceberg-go's interfaces have no room for it
	store Store
}

var _ interface {
	iceio.ReadFileIO
	iceio.WriteFileIO
	iceio.ListableIO
	iceio.BulkRemovableIO
	iceio.StatIO
} = (*fileIO)(nil)

func (f *fileIO) key(op, uri string) (string, error) {
	key, ok := f.store.Key(uri)
	if !ok {
		return "", &fs.PathError{Op: op, Path: uri, Err: fmt.Errorf("it lies outside %s: %w", f.store.URI(""), fs.ErrInvalid)}
	}
	return key, nil
}

// wholeSuffixes are files that are always read from start to end: one GET.
var wholeSuffixes = []string{".avro", ".json"}

func (f *fileIO) Open(name string) (iceio.File, error) {
	key, err := f.key("open", name)
	if err != nil {
		return nil, err
	}
	for _, suffix := range wholeSuffixes {
		if strings.HasSuffix(key, suffix) {
			data, err := f.store.Get(f.ctx, key)
			if err != nil {
				return nil, &fs.PathError{Op: "open", Path: name, Err: err}
			}
			return newFile(key, inMemory{bytes.NewReader(data)}), nil
		}
	}
	r, err := f.store.OpenReader(f.ctx, key)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return newFile(key, r), nil
}

func (f *fileIO) ReadFile(name string) ([]byte, error) {
	key, err := f.key("read", name)
	if err != nil {
		return nil, err
	}
	data, err := f.store.Get(f.ctx, key)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return data, nil
}

func (f *fileIO) Stat(name string) (fs.FileInfo, error) {
	key, err := f.key("stat", name)
	if err != nil {
		return nil, err
	}
	info, err := f.store.Head(f.ctx, key)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return fileInfo{info}, nil
}

func (f *fileIO) WriteFile(name string, p []byte) error {
	key, err := f.key("write", name)
	if err != nil {
		return err
	}
	if err := f.store.Put(f.ctx, key, bytes.NewReader(p), int64(len(p))); err != nil {
		return &fs.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

func (f *fileIO) Create(name string) (iceio.FileWriter, error) {
	if _, err := f.key("create", name); err != nil {
		return nil, err
	}
	return &fileWriter{f: f, name: name}, nil
}

func (f *fileIO) Remove(name string) error {
	_, err := f.DeleteFiles(f.ctx, []string{name})
	return err
}

func (f *fileIO) DeleteFiles(ctx context.Context, paths []string) (deleted []string, err error) {
	var errs []error
	for _, name := range paths {
		key, err := f.key("remove", name)
		if err == nil {
			err = f.store.Delete(ctx, key)
		}
		if err != nil {
			errs = append(errs, &fs.PathError{Op: "remove", Path: name, Err: err})
			continue
		}
		deleted = append(deleted, name)
	}
	return deleted, errors.Join(errs...)
}

// WalkDir calls fn for root and for each object under it; there are no
// directories below, but fn may answer fs.SkipDir and fs.SkipAll.
func (f *fileIO) WalkDir(root string, fn fs.WalkDirFunc) error {
	base := strings.TrimSuffix(root, "/")
	prefix := ""
	if base != strings.TrimSuffix(f.store.URI(""), "/") {
		key, err := f.key("walk", base)
		if err != nil {
			return fn(root, nil, err)
		}
		prefix = key + "/"
	}
	skip := func(err error) error {
		if errors.Is(err, fs.SkipDir) || errors.Is(err, fs.SkipAll) {
			return nil
		}
		return err
	}
	if err := fn(root, fs.FileInfoToDirEntry(dirInfo{path.Base(base)}), nil); err != nil {
		return skip(err)
	}
	const page = 1000
	for after := ""; ; {
		infos, err := f.store.List(f.ctx, prefix, after, page)
		if err != nil {
			return skip(fn(root, nil, err))
		}
		for _, info := range infos {
			name := base + "/" + strings.TrimPrefix(info.Key, prefix)
			if err := fn(name, fs.FileInfoToDirEntry(fileInfo{info}), nil); err != nil {
				return skip(err)
			}
			after = info.Key
		}
		if len(infos) < page {
			return nil
		}
	}
}

// file is an iceio.File over a Reader.
type file struct {
	*io.SectionReader
	key string
	r   Reader
}

func newFile(key string, r Reader) *file {
	return &file{SectionReader: io.NewSectionReader(r, 0, r.Size()), key: key, r: r}
}

func (f *file) Close() error { return f.r.Close() }

func (f *file) Stat() (fs.FileInfo, error) {
	return fileInfo{Info{Key: f.key, Size: f.r.Size()}}, nil
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// fileWriter holds the content until Close, which makes the object.
type fileWriter struct {
	bytes.Buffer
	f      *fileIO
	name   string
	closed bool
}

func (w *fileWriter) Close() error {
	if w.closed {
		return &fs.PathError{Op: "close", Path: w.name, Err: fs.ErrClosed}
	}
	w.closed = true
	return w.f.WriteFile(w.name, w.Bytes())
}

type fileInfo struct{ Info }

func (i fileInfo) Name() string       { return path.Base(i.Key) }
func (i fileInfo) Size() int64        { return i.Info.Size }
func (i fileInfo) Mode() fs.FileMode  { return 0o644 }
func (i fileInfo) ModTime() time.Time { return i.Modified }
func (i fileInfo) IsDir() bool        { return false }
func (i fileInfo) Sys() any           { return nil }

type dirInfo struct{ name string }

func (i dirInfo) Name() string       { return i.name }
func (i dirInfo) Size() int64        { return 0 }
func (i dirInfo) Mode() fs.FileMode  { return fs.ModeDir | 0o755 }
func (i dirInfo) ModTime() time.Time { return time.Time{} }
func (i dirInfo) IsDir() bool        { return true }
func (i dirInfo) Sys() any           { return nil }

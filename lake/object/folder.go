package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
)

// folderTmp is where files grow before they get their names. It lies inside
// the warehouse, because link(2) does not cross file systems, and no listing
// shows it.
const folderTmp = "_firn/tmp"

// Folder is a Store in a directory. A file is written under folderTmp, synced,
// linked to its name, and the directory synced: a name always has its whole
// content, at whatever moment a machine or a process dies.
type Folder struct {
	root string // absolute, no slash at its end

	mu   sync.Mutex
	dirs map[string]bool // directories known to be there and synced
}

func openFolder(path string) (*Folder, error) {
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open folder %q: %w", path, err)
	}
	if strings.ContainsAny(root, "%?#") {
		return nil, fmt.Errorf("open folder %q: its path must not hold %%, ? or #, which readers take apart in URIs", root)
	}
	parent := filepath.Dir(root)
	if _, err := os.Stat(parent); err != nil {
		return nil, fmt.Errorf("open folder %q: its parent must be there: %w", root, err)
	}
	f := &Folder{root: root, dirs: map[string]bool{parent: true}}
	if info, err := os.Stat(root); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("open folder %q: it is a file", root)
	}
	if err := f.makeDir(root); err != nil {
		return nil, fmt.Errorf("open folder %q: %w", root, err)
	}
	return f, nil
}

func (f *Folder) path(key string) string { return filepath.Join(f.root, filepath.FromSlash(key)) }

// URI is file:///… of the absolute path.
func (f *Folder) URI(key string) string { return "file://" + filepath.ToSlash(f.path(key)) }

// Key takes file:///path, file:/path and a bare absolute path.
func (f *Folder) Key(uri string) (string, bool) {
	p := strings.TrimPrefix(strings.TrimPrefix(uri, "file://"), "file:")
	key, ok := strings.CutPrefix(p, filepath.ToSlash(f.root)+"/")
	return key, ok && checkKey(key) == nil
}

// Put replaces by rename, so that a reader sees the old or the new content.
func (f *Folder) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	return f.put(ctx, key, body, size, os.Rename)
}

// PutIfAbsent places by link(2), which fails for a taken name.
func (f *Folder) PutIfAbsent(ctx context.Context, key string, body []byte) error {
	return f.put(ctx, key, bytes.NewReader(body), int64(len(body)), func(tmp, name string) error {
		err := os.Link(tmp, name)
		if errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) {
			return fmt.Errorf("%w: its file system has no hard links: %w", ErrUnconditional, err)
		}
		return err
	})
}

func (f *Folder) put(ctx context.Context, key string, body io.ReadSeeker, size int64, place func(tmp, name string) error) error {
	err := checkKey(key)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = f.write(key, body, size, place)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", f.URI(key), err)
	}
	return nil
}

func (f *Folder) write(key string, body io.ReadSeeker, size int64, place func(tmp, name string) error) (err error) {
	name := f.path(key)
	dir := filepath.Dir(name)
	if err := f.makeDir(dir); err != nil {
		return err
	}
	tmp, err := f.writeTmp(body, size)
	if err != nil {
		return err
	}
	defer func() {
		// After a rename it is gone; after a link it is the second name.
		if gone := os.Remove(tmp); gone != nil && !errors.Is(gone, fs.ErrNotExist) && err == nil {
			err = gone
		}
	}()
	if err := place(tmp, name); err != nil {
		if errors.Is(err, fs.ErrExist) {
			// The winner may have died before its sync; who reads its file
			// next may build on it.
			return errors.Join(err, syncDir(dir))
		}
		return err
	}
	return syncDir(dir)
}

func (f *Folder) writeTmp(body io.ReadSeeker, size int64) (string, error) {
	dir := f.path(folderTmp)
	if err := f.makeDir(dir); err != nil {
		return "", err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	tmp := filepath.Join(dir, uuid.NewString())
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	_, err = io.CopyN(file, body, size)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err != nil {
		return "", errors.Join(err, os.Remove(tmp))
	}
	return tmp, nil
}

// makeDir makes dir and what is missing above it, each synced in its parent.
func (f *Folder) makeDir(dir string) error {
	f.mu.Lock()
	known := f.dirs[dir]
	f.mu.Unlock()
	if known {
		// Someone may have cleared the warehouse under us.
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
	}
	if parent := filepath.Dir(dir); parent != dir && dir != f.root {
		if err := f.makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also when it was there: its maker may not have synced it.
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	f.mu.Lock()
	f.dirs[dir] = true
	f.mu.Unlock()
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Get implements Store.
func (f *Folder) Get(ctx context.Context, key string) ([]byte, error) {
	if err := f.ready(ctx, key); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(f.path(key))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", f.URI(key), err)
	}
	return data, nil
}

// GetRange implements Store.
func (f *Folder) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	r, err := f.OpenReader(ctx, key)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readRange(r, f.URI(key), off, n)
}

func readRange(r Reader, uri string, off, n int64) ([]byte, error) {
	if off < 0 || n < 0 {
		return nil, fmt.Errorf("get %s: range of %d bytes at %d: %w", uri, n, off, fs.ErrInvalid)
	}
	buf := make([]byte, max(0, min(n, r.Size()-off)))
	if _, err := r.ReadAt(buf, off); err != nil && !(errors.Is(err, io.EOF) && len(buf) == 0) {
		return nil, fmt.Errorf("get %s: %w", uri, err)
	}
	return buf, nil
}

type folderReader struct {
	*os.File
	size int64
}

func (r folderReader) Size() int64 { return r.size }

// OpenReader implements Store.
func (f *Folder) OpenReader(ctx context.Context, key string) (Reader, error) {
	if err := f.ready(ctx, key); err != nil {
		return nil, err
	}
	file, err := os.Open(f.path(key))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.URI(key), err)
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", f.URI(key), err), file.Close())
	}
	return folderReader{file, info.Size()}, nil
}

// Head implements Store.
func (f *Folder) Head(ctx context.Context, key string) (Info, error) {
	if err := f.ready(ctx, key); err != nil {
		return Info{}, err
	}
	info, err := os.Stat(f.path(key))
	if err == nil && info.IsDir() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Info{}, fmt.Errorf("head %s: %w", f.URI(key), err)
	}
	return Info{Key: key, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Delete implements Store. Directories that it empties stay.
func (f *Folder) Delete(ctx context.Context, keys ...string) error {
	var errs []error
	for _, key := range keys {
		err := f.ready(ctx, key)
		if err == nil {
			err = os.Remove(f.path(key))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("delete %s: %w", f.URI(key), err))
		}
	}
	return errors.Join(errs...)
}

// Now is the file system's clock, which on a network mount is the server's.
func (f *Folder) Now(ctx context.Context) (time.Time, error) {
	tmp, err := f.writeTmp(bytes.NewReader(nil), 0)
	if err != nil {
		return time.Time{}, fmt.Errorf("read clock of %s: %w", f.root, err)
	}
	info, err := os.Stat(tmp)
	if err := errors.Join(err, os.Remove(tmp)); err != nil {
		return time.Time{}, fmt.Errorf("read clock of %s: %w", f.root, err)
	}
	return info.ModTime(), ctx.Err()
}

func (f *Folder) ready(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return checkKey(key)
}

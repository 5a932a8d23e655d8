package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// List implements Store.
func (f *Folder) List(ctx context.Context, prefix, startAfter string, limit int) ([]Info, error) {
	keys, err := f.Keys(ctx, prefix, startAfter, limit)
	if err != nil {
		return nil, err
	}
	out := make([]Info, 0, len(keys))
	for _, k := range keys {
		info, err := f.Head(ctx, k)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

// Keys implements Store.
func (f *Folder) Keys(ctx context.Context, prefix, startAfter string, limit int) ([]string, error) {
	w := walk{f: f, prefix: prefix, after: startAfter, limit: limit}
	dir := ""
	if at := strings.LastIndexByte(prefix, '/'); at >= 0 {
		dir = prefix[:at+1]
	}
	if strings.TrimSuffix(dir, "/") != "" {
		if err := checkKey(strings.TrimSuffix(dir, "/")); err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
	}
	if err := w.dir(ctx, dir); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("list %s: %w", f.URI(prefix), err)
	}
	return w.keys, nil
}

type walk struct {
	f             *Folder
	prefix, after string
	limit         int
	keys          []string
}

// dir adds the keys under dir ("" or ending with a slash) in order; io.EOF
// means that the limit is reached.
func (w *walk) dir(ctx context.Context, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	names, err := w.names(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, "/") {
			if err := w.dir(ctx, name); err != nil {
				return err
			}
			continue
		}
		w.keys = append(w.keys, name)
		if len(w.keys) == w.limit {
			return io.EOF
		}
	}
	return nil
}

// names returns the keys in dir, directories with a slash at the end, sorted
// as the keys under them sort. Of a large directory read for a small limit it
// keeps only the first names.
func (w *walk) names(dir string) ([]string, error) {
	d, err := os.Open(w.f.path(strings.TrimSuffix(dir, "/")))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var names []string
	most := 0
	if w.limit > 0 {
		// A directory among the first may turn out empty, so they all count
		// beside the limit.
		most = 2*w.limit + 4096
	}
	for {
		entries, err := d.ReadDir(1024)
		for _, e := range entries {
			if name := dir + e.Name(); e.IsDir() {
				if w.enter(name + "/") {
					names = append(names, name+"/")
				}
			} else if e.Type().IsRegular() && strings.HasPrefix(name, w.prefix) && name > w.after {
				names = append(names, name)
			}
		}
		if most > 0 && len(names) > most {
			names = w.first(names)
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// first keeps all directories and as many files as the limit.
func (w *walk) first(names []string) []string {
	slices.Sort(names)
	files := 0
	return slices.DeleteFunc(names, func(n string) bool {
		if strings.HasSuffix(n, "/") {
			return false
		}
		files++
		return files > w.limit
	})
}

// enter reports whether keys under dir can be wanted.
func (w *walk) enter(dir string) bool {
	if dir == folderTmp+"/" {
		return false
	}
	inside := strings.HasPrefix(dir, w.prefix) || strings.HasPrefix(w.prefix, dir)
	past := dir > w.after || strings.HasPrefix(w.after, dir)
	return inside && past
}

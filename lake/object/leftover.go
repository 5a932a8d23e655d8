package object

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// RemoveLeftovers removes what killed writers left half-written and no listing
// shows: temporary files of a folder, uploads in parts of S3. Only those older
// than age, by the store's own clock, are taken, for a younger one may still
// be growing. It returns how many it removed. The running owner calls it.
func RemoveLeftovers(ctx context.Context, s Store, age time.Duration) (int, error) {
	l, ok := s.(interface {
		removeLeftovers(ctx context.Context, before time.Time) (int, error)
	})
	if !ok {
		return 0, nil
	}
	now, err := s.Now(ctx)
	if err != nil {
		return 0, err
	}
	n, err := l.removeLeftovers(ctx, now.Add(-age))
	if err != nil {
		return n, fmt.Errorf("remove leftovers of %s: %w", s.URI(""), err)
	}
	return n, nil
}

func (f *Folder) removeLeftovers(ctx context.Context, before time.Time) (int, error) {
	dir := f.path(folderTmp)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n := 0
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() && info.ModTime().Before(before) {
			if err = os.Remove(filepath.Join(dir, e.Name())); err == nil {
				n++
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n, err
		}
	}
	return n, nil
}

func (s *S3) removeLeftovers(ctx context.Context, before time.Time) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := 0
	for u := range s.core.ListIncompleteUploads(ctx, s.bucket, s.prefix, true) {
		if u.Err != nil {
			return n, u.Err
		}
		if !u.Initiated.Before(before) {
			continue
		}
		if err := s.core.AbortMultipartUpload(ctx, s.bucket, u.Key, u.UploadID); err != nil {
			return n, err
		}
		n++
	}
	return n, ctx.Err()
}

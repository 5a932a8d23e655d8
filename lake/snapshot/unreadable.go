package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"firn/lake"
)

// origin is a Store whose errors say that they are the store's: what else goes
// wrong in reading a table lies in its files, a missing one among that.
type origin struct{ Store }

type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

func ofStore(err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return &storeError{err}
}

func (s origin) Get(ctx context.Context, key string) ([]byte, error) {
	b, err := s.Store.Get(ctx, key)
	return b, ofStore(err)
}

func (s origin) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	b, err := s.Store.GetRange(ctx, key, off, n)
	return b, ofStore(err)
}

// unreadable makes an error of reading a table a lake.ErrUnreadable, unless it is
// the store's or ctx has ended.
func unreadable(ctx context.Context, err error) error {
	var store *storeError
	if err == nil || ctx.Err() != nil || errors.Is(err, context.Canceled) || errors.As(err, &store) {
		return err
	}
	return fmt.Errorf("%w: %w", lake.ErrUnreadable, err)
}

// Package object is where a warehouse's objects lie: S3 and what speaks like
// it, or a folder. Both give the one conditional operation that the epoch log
// rests on, put-if-absent, and both fit into iceberg-go as its FileIO.
//
// Keys are relative to the warehouse, slash-separated, and never reused for
// other content, except where Put says so. A key's URI is what goes into
// Iceberg metadata.
package object

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// Errors beside fs.ErrNotExist (no such object), fs.ErrExist (PutIfAbsent's key
// is taken) and fs.ErrPermission (credentials refused, read-only folder). They
// are told apart with errors.Is; the text says what to do.
var (
	ErrNoBucket      = errors.New("the bucket does not exist")
	ErrNoCredentials = errors.New("no S3 credentials found")
	ErrUnreachable   = errors.New("the object store cannot be reached")
	ErrUnavailable   = errors.New("the object store cannot answer now") // 429, 5xx
	ErrUnconditional = errors.New("the store has no conditional writes")
)

// Store is a warehouse's objects. All methods may be called from any
// goroutine. Transient errors are retried inside, for about ten seconds; what
// comes back after that is final for the call.
type Store interface {
	// Put writes an object, over one that is there: only version-hint.text is
	// written twice. It reads size bytes from body, from its start, and may
	// read them again. It returns when the object is durable.
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error
	// PutIfAbsent writes an object unless the key is taken: fs.ErrExist. Any
	// other error leaves open whether it was written. It is tried once, for a
	// hidden second try could be refused because of the first.
	PutIfAbsent(ctx context.Context, key string, body []byte) error
	// Get returns a whole object.
	Get(ctx context.Context, key string) ([]byte, error)
	// GetRange returns up to n bytes from off; fewer at the object's end.
	GetRange(ctx context.Context, key string, off, n int64) ([]byte, error)
	// OpenReader opens an object for random reads under ctx.
	OpenReader(ctx context.Context, key string) (Reader, error)
	// Head returns an object's size and age.
	Head(ctx context.Context, key string) (Info, error)
	// List returns the objects under prefix (any string, not only a folder's
	// name) after startAfter, in lexical order of their keys, at most limit;
	// limit 0 means all.
	List(ctx context.Context, prefix, startAfter string, limit int) ([]Info, error)
	// Keys is List for the keys alone, and cheaper on a folder.
	Keys(ctx context.Context, prefix, startAfter string, limit int) ([]string, error)
	// Delete removes objects. A missing one is no error. All are tried.
	Delete(ctx context.Context, keys ...string) error
	// URI is the name that Iceberg metadata has for key.
	URI(key string) string
	// Key is the inverse, and false for what lies outside this warehouse.
	Key(uri string) (string, bool)
	// Now is the store's own clock, which Info.Modified is measured by; S3's
	// has a resolution of a second.
	Now(ctx context.Context) (time.Time, error)
}

// Info is what a listing says about an object.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time
}

// Reader reads one object. ReadAt may be called from several goroutines.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Options of Open. The zero value finds region and credentials as the AWS
// tools do, and is right for a folder.
type Options struct {
	// Endpoint is the URL of an S3 other than Amazon's; by default the
	// environment's AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.
	Endpoint string
	// Region by default is the environment's AWS_REGION or
	// AWS_DEFAULT_REGION; else us-east-1 for an Endpoint, and asked of Amazon.
	Region string
	// PathStyle forces http://host/bucket/key; otherwise it is used wherever
	// the host isn't known to want http://bucket.host/key.
	PathStyle bool
	// AccessKeyID and SecretAccessKey, with SessionToken for temporary ones,
	// go before the AWS chain.
	AccessKeyID, SecretAccessKey, SessionToken string
}

// Open opens a warehouse: s3://bucket/prefix, or a folder (a path, or
// file:///path), which is made if its parent is there. It checks that the
// bucket exists and that the folder can be written.
func Open(ctx context.Context, warehouse string, o Options) (Store, error) {
	scheme, rest, ok := strings.Cut(warehouse, "://")
	switch {
	case !ok && strings.HasPrefix(warehouse, "file:"):
		return openFolder(strings.TrimPrefix(warehouse, "file:"))
	case !ok:
		return openFolder(warehouse)
	case scheme == "file":
		return openFolder(rest)
	case scheme == "s3" || scheme == "s3a":
		bucket, prefix, _ := strings.Cut(rest, "/")
		return openS3(ctx, bucket, strings.Trim(prefix, "/"), o)
	}
	return nil, fmt.Errorf("open warehouse %q: want s3://bucket/prefix or a folder", warehouse)
}

// checkKey keeps a key inside its warehouse, and the same object under one
// name only.
func checkKey(key string) error {
	if !fs.ValidPath(key) || key == "." || strings.ContainsRune(key, 0) {
		return fmt.Errorf("object key %q: %w", key, fs.ErrInvalid)
	}
	return nil
}

package object

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
)

// S3 is a Store in a bucket, or under a prefix of one.
type S3 struct {
	bucket, prefix string // prefix is "" or ends with a slash
	core           minio.Core
	once           *minio.Client // doesn't retry
	date           *dateKeeper
}

func openS3(ctx context.Context, bucket, prefix string, o Options) (*S3, error) {
	if bucket == "" {
		return nil, errors.New("open warehouse: want s3://bucket/prefix")
	}
	if strings.ContainsAny(prefix, "%?#") {
		return nil, fmt.Errorf("open warehouse s3://%s/%s: its prefix must not hold %%, ? or #, which readers take apart in URIs", bucket, prefix)
	}
	if prefix != "" {
		prefix += "/"
	}
	core, once, date, err := dial(o)
	if err != nil {
		return nil, fmt.Errorf("open warehouse s3://%s/%s: %w", bucket, prefix, err)
	}
	s := &S3{bucket: bucket, prefix: prefix, core: *core, once: once, date: date}
	there, err := core.BucketExists(ctx, bucket)
	if err == nil && !there {
		err = fmt.Errorf("%w: make %q first", ErrNoBucket, bucket)
	}
	if err != nil {
		return nil, s.fail("open", "", err)
	}
	return s, nil
}

// URI is s3://bucket/….
func (s *S3) URI(key string) string { return "s3://" + s.bucket + "/" + s.prefix + key }

// Key takes the schemes that engines write: s3, s3a and s3n.
func (s *S3) Key(uri string) (string, bool) {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok || scheme != "s3" && scheme != "s3a" && scheme != "s3n" {
		return "", false
	}
	key, ok := strings.CutPrefix(rest, s.bucket+"/"+s.prefix)
	return key, ok && checkKey(key) == nil
}

// plain hides a Close that the client would call, and keeps ReadAt, which it
// sends parts in parallel by.
type plain struct{ io.ReadSeeker }

type plainAt struct {
	io.ReadSeeker
	io.ReaderAt
}

// Put implements Store. From 16 MiB on it uploads in parts, in parallel if
// body is an io.ReaderAt.
func (s *S3) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("put %s: %w", s.URI(key), err)
	}
	var r io.Reader = plain{body}
	if at, ok := body.(io.ReaderAt); ok {
		r = plainAt{body, at}
	}
	_, err := s.core.Client.PutObject(ctx, s.bucket, s.prefix+key, r, size, minio.PutObjectOptions{})
	return s.fail("put", key, err)
}

// conflictTriesMax bounds what a 409 starts: two conditional writes met, and
// neither may have won.
const conflictTriesMax = 5

// PutIfAbsent implements Store, by If-None-Match: *.
func (s *S3) PutIfAbsent(ctx context.Context, key string, body []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	o := minio.PutObjectOptions{DisableMultipart: true}
	o.SetMatchETagExcept("*")
	for try := 1; ; try++ {
		_, err := s.once.PutObject(ctx, s.bucket, s.prefix+key, bytes.NewReader(body), int64(len(body)), o)
		if minio.ToErrorResponse(err).StatusCode != http.StatusConflict || try == conflictTriesMax {
			return s.fail("put", key, err)
		}
		if err := pause(ctx, try); err != nil {
			return s.fail("put", key, err)
		}
	}
}

// Get implements Store.
func (s *S3) Get(ctx context.Context, key string) ([]byte, error) {
	return s.get(ctx, key, minio.GetObjectOptions{})
}

// GetRange implements Store.
func (s *S3) GetRange(ctx context.Context, key string, off, n int64) ([]byte, error) {
	if off < 0 || n < 0 {
		return nil, fmt.Errorf("get %s: range of %d bytes at %d: %w", s.URI(key), n, off, fs.ErrInvalid)
	}
	if n == 0 {
		_, err := s.Head(ctx, key)
		return []byte{}, err
	}
	var o minio.GetObjectOptions
	if err := o.SetRange(off, off+n-1); err != nil {
		return nil, fmt.Errorf("get %s: %w", s.URI(key), err)
	}
	data, err := s.get(ctx, key, o)
	if minio.ToErrorResponse(errors.Unwrap(err)).StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return []byte{}, nil // off is at or past the end
	}
	return data, err
}

// bodyTriesMax bounds how often a body that broke off is asked for again.
const bodyTriesMax = 4

func (s *S3) get(ctx context.Context, key string, o minio.GetObjectOptions) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		body, info, _, err := s.core.GetObject(ctx, s.bucket, s.prefix+key, o)
		if err != nil {
			return nil, s.fail("get", key, err)
		}
		buf := bytes.NewBuffer(make([]byte, 0, max(info.Size, 0)+bytes.MinRead))
		_, err = buf.ReadFrom(body)
		if closeErr := body.Close(); err == nil && closeErr != nil {
			err = closeErr
		}
		if err == nil {
			return buf.Bytes(), nil
		}
		if try == bodyTriesMax {
			return nil, s.fail("get", key, err)
		}
		if err := pause(ctx, try); err != nil {
			return nil, s.fail("get", key, err)
		}
	}
}

type s3Reader struct {
	ctx  context.Context // io.ReaderAt has no room for it
	s    *S3
	key  string
	size int64
}

// OpenReader implements Store. Each ReadAt is one ranged GET.
func (s *S3) OpenReader(ctx context.Context, key string) (Reader, error) {
	info, err := s.Head(ctx, key)
	if err != nil {
		return nil, err
	}
	return &s3Reader{ctx: ctx, s: s, key: key, size: info.Size}, nil
}

func (r *s3Reader) Size() int64 { return r.size }

func (r *s3Reader) Close() error { return nil }

func (r *s3Reader) ReadAt(p []byte, off int64) (int, error) {
	want := min(int64(len(p)), max(0, r.size-off))
	if want == 0 {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	data, err := r.s.GetRange(r.ctx, r.key, off, want)
	if err != nil {
		return 0, err
	}
	n := copy(p, data)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Head implements Store.
func (s *S3) Head(ctx context.Context, key string) (Info, error) {
	if err := checkKey(key); err != nil {
		return Info{}, err
	}
	o, err := s.core.StatObject(ctx, s.bucket, s.prefix+key, minio.StatObjectOptions{})
	if err != nil {
		return Info{}, s.fail("head", key, err)
	}
	return Info{Key: key, Size: o.Size, Modified: o.LastModified}, nil
}

// List implements Store.
func (s *S3) List(ctx context.Context, prefix, startAfter string, limit int) ([]Info, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true, MaxKeys: min(limit, 1000)}
	if startAfter != "" {
		o.StartAfter = s.prefix + startAfter
	}
	var out []Info
	for object := range s.core.ListObjectsIter(ctx, s.bucket, o) {
		if object.Err != nil {
			return nil, s.fail("list", prefix, object.Err)
		}
		key, ok := strings.CutPrefix(object.Key, s.prefix)
		if !ok || strings.HasSuffix(key, "/") {
			continue // a console's "folder" objects
		}
		out = append(out, Info{Key: key, Size: object.Size, Modified: object.LastModified})
		if len(out) == limit {
			break
		}
	}
	return out, ctx.Err()
}

// Keys implements Store.
func (s *S3) Keys(ctx context.Context, prefix, startAfter string, limit int) ([]string, error) {
	infos, err := s.List(ctx, prefix, startAfter, limit)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(infos))
	for i, o := range infos {
		keys[i] = o.Key
	}
	return keys, nil
}

// Delete implements Store, a thousand keys a request.
func (s *S3) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := checkKey(key); err != nil {
			return err
		}
	}
	if len(keys) == 1 {
		err := s.fail("delete", keys[0], s.core.RemoveObject(ctx, s.bucket, s.prefix+keys[0], minio.RemoveObjectOptions{}))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	in := make(chan minio.ObjectInfo)
	var feeder sync.WaitGroup
	feeding, stop := context.WithCancel(ctx)
	defer feeder.Wait()
	defer stop()
	feeder.Go(func() {
		defer close(in)
		for _, key := range keys {
			select {
			case in <- minio.ObjectInfo{Key: s.prefix + key}:
			case <-feeding.Done():
				return
			}
		}
	})
	var errs []error
	for e := range s.core.RemoveObjects(ctx, s.bucket, in, minio.RemoveObjectsOptions{}) {
		if minio.ToErrorResponse(e.Err).Code != minio.NoSuchKey {
			errs = append(errs, s.fail("delete", strings.TrimPrefix(e.ObjectName, s.prefix), e.Err))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// Now implements Store, by the Date of an answer.
func (s *S3) Now(ctx context.Context) (time.Time, error) {
	if _, err := s.core.BucketExists(ctx, s.bucket); err != nil {
		return time.Time{}, s.fail("read clock of", "", err)
	}
	now, ok := s.date.now()
	if !ok {
		return time.Time{}, fmt.Errorf("read clock of %s: its answers have no Date", s.URI(""))
	}
	return now, nil
}

// endpointHost takes an endpoint's URL apart.
func endpointHost(endpoint string) (host string, secure bool, err error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
		return "", false, fmt.Errorf("S3 endpoint %q: want http://host:port or https://host", endpoint)
	}
	return u.Host, u.Scheme == "https", nil
}

func pause(ctx context.Context, try int) error {
	t := time.NewTimer(50 * time.Millisecond << try)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

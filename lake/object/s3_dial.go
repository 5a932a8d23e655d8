package object

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	amazonHost = "s3.amazonaws.com"
	triesMax   = 8 // of a request, with up to a second between two

	dialTimeout   = 10 * time.Second
	answerTimeout = 30 * time.Second // from the request's end to the answer's head
	idleConnsMax  = 64               // an epoch sends all its objects at once
)

// dial returns a client that retries and one that doesn't, over the same
// connections.
func dial(o Options) (*minio.Core, *minio.Client, *dateKeeper, error) {
	endpoint := cmp.Or(o.Endpoint, os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
	host, secure := amazonHost, true
	region := cmp.Or(o.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	if endpoint != "" {
		var err error
		if host, secure, err = endpointHost(endpoint); err != nil {
			return nil, nil, nil, err
		}
		region = cmp.Or(region, "us-east-1")
	}
	creds, err := findCredentials(o, host)
	if err != nil {
		return nil, nil, nil, err
	}
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, nil, nil, err
	}
	transport.DialContext = dialLive((&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext)
	transport.MaxIdleConnsPerHost = idleConnsMax
	transport.ResponseHeaderTimeout = answerTimeout
	date := &dateKeeper{next: transport}
	options := minio.Options{Creds: creds, Secure: secure, Transport: date, Region: region, MaxRetries: triesMax}
	if o.PathStyle {
		options.BucketLookup = minio.BucketLookupPath
	}
	core, err := minio.NewCore(host, &options)
	if err != nil {
		return nil, nil, nil, err
	}
	options.MaxRetries = 1
	once, err := minio.New(host, &options)
	return core, once, date, err
}

// findCredentials goes the AWS chain: environment, shared file, and on Amazon
// the machine's or container's role.
func findCredentials(o Options, host string) (*credentials.Credentials, error) {
	if o.AccessKeyID != "" {
		return credentials.NewStaticV4(o.AccessKeyID, o.SecretAccessKey, o.SessionToken), nil
	}
	providers := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	role := host == amazonHost
	for _, name := range []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		role = role || os.Getenv(name) != ""
	}
	if role {
		providers = append(providers, &credentials.IAM{Client: &http.Client{Timeout: 5 * time.Second}})
	}
	creds := credentials.NewChainCredentials(providers)
	// The chain's last resort is to ask without a name, which no warehouse
	// allows, and whose refusal would hide what is missing.
	v, err := creds.GetWithContext(&credentials.CredContext{Client: &http.Client{Timeout: 5 * time.Second}})
	if err != nil || v.AccessKeyID == "" {
		return nil, fmt.Errorf("%w: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials", errors.Join(ErrNoCredentials, err))
	}
	return creds, nil
}

// dateKeeper remembers the newest answer's Date.
type dateKeeper struct {
	next http.RoundTripper
	mu   sync.Mutex
	date time.Time // the store's
	at   time.Time // ours, when it came
}

func (d *dateKeeper) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := d.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		d.mu.Lock()
		d.date, d.at = date, time.Now()
		d.mu.Unlock()
	}
	return resp, nil
}

func (d *dateKeeper) now() (time.Time, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.date.IsZero() {
		return time.Time{}, false
	}
	return d.date.Add(time.Since(d.at)), true
}

// fail gives an error of the client its meaning and place; nil stays nil.
func (s *S3) fail(verb, key string, err error) error {
	if err == nil {
		return nil
	}
	uri := s.URI(key)
	r := minio.ToErrorResponse(err)
	var kind error
	switch r.Code {
	case minio.NoSuchKey, "NotFound":
		kind = fs.ErrNotExist
	case minio.NoSuchBucket:
		kind = ErrNoBucket
	case minio.PreconditionFailed:
		kind = fs.ErrExist
	case minio.AccessDenied, "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AllAccessDisabled":
		kind = fs.ErrPermission
	case "NotImplemented":
		kind = ErrUnconditional
	}
	if kind == nil && (r.StatusCode >= http.StatusInternalServerError || r.StatusCode == http.StatusTooManyRequests) {
		kind = ErrUnavailable
	}
	var unreached *url.Error
	if kind == nil && errors.As(err, &unreached) {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			kind = ErrUnreachable
		}
	}
	switch {
	case r.StatusCode != 0 && kind != nil:
		// The client's own sentence, without its advice to look elsewhere.
		return fmt.Errorf("%s %s: %w (%s: %s)", verb, uri, kind, r.Code, r.Message)
	case kind != nil:
		return fmt.Errorf("%s %s: %w: %w", verb, uri, kind, err)
	}
	return fmt.Errorf("%s %s: %w", verb, uri, err)
}

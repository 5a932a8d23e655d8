package catalog

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

// Limits of what one request may hold and how long an answer may stay behind
// the log.
const (
	requestBytesMax     = 32 << 20 // after gzip is undone
	jsonDepthMax        = 128
	metadataBytesMax    = 256 << 20 // of one metadata file
	cacheBytesMax       = 64 << 20  // of metadata files, as JSON
	pageSizeMax         = 1000
	tableChangesMax     = 1000
	idempotencyLifetime = time.Hour
	defaultHeadAge      = time.Second
)

// ServerOptions says how a Server answers.
type ServerOptions struct {
	// Warehouse is the name that clients may give it; an empty one and the
	// warehouse's URI are understood too, each also with @ and a moment (see
	// ParseMoment) for a read-only view of that epoch. Any other is refused.
	Warehouse string
	// Token is what clients must present as a bearer token, or as the client
	// secret of an OAuth2 client-credentials request. Empty: no check.
	Token string
	// Config goes with every loaded table, and as defaults with /v1/config:
	// client.region, s3.endpoint, s3.path-style-access. It must hold no keys
	// or passwords.
	Config map[string]string
	// AllowRowChanges tells whether others may change rows of a mirrored
	// table. Nil: of none.
	AllowRowChanges func(Ident) bool
	// HeadAgeMax is how far a read may lag behind commits made by other
	// processes; those made through the same Log are seen at once. Zero: one
	// second; negative: never look, because this process's owner follows the
	// log anyway. Writes always look.
	HeadAgeMax time.Duration
	Logger     *slog.Logger // nil: slog.Default()
}

// ObjectStore is what the server needs of the warehouse's store.
type ObjectStore interface {
	// Put writes size bytes of body, durably.
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error
	// Get's error is fs.ErrNotExist for a missing key.
	Get(ctx context.Context, key string) ([]byte, error)
	// URI is the name that readers know an object by; Key its inverse, false
	// for a URI outside the warehouse.
	URI(key string) string
	Key(uri string) (key string, ok bool)
}

// server is the Iceberg REST catalog over an epoch log.
//
// A request that changes something is a plan: a function that reads a State,
// does whatever needs the store (reads the table's metadata, checks the
// requirements, writes the next metadata file under a new name) and returns
// the assignments to make. It runs against the head first, outside the log's
// lock, so that a client's upload never holds up the stream; then again inside
// Log.Commit, where it finds its own work still valid unless the table has
// moved in between, and does it over if so. Nothing is visible before the
// log's conditional put, and a metadata file that loses is never read: its
// name is not used again.
//
// The rejected design is a commit per table under a lock of its own: it makes
// transactions/commit a two-phase protocol, and the log serialises anyway.
//
// Files are never deleted here, not even for purgeRequested: only the running
// owner deletes, after the grace time.
type server struct {
	log   *Log
	store ObjectStore
	o     ServerOptions
	slog  *slog.Logger
	cache *metadataCache
	kept  *keptCache
	pins  pinCache
	fresh freshness
	token [sha256.Size]byte
	etag  string // of Config, part of every table's
}

// NewServer returns the handler of /v1/…. It starts no goroutine. The store is
// the one that log writes to.
func NewServer(log *Log, st ObjectStore, o ServerOptions) http.Handler {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.HeadAgeMax == 0 {
		o.HeadAgeMax = defaultHeadAge
	}
	return &server{
		log:   log,
		store: st,
		o:     o,
		slog:  o.Logger,
		cache: newMetadataCache(cacheBytesMax),
		kept:  newKeptCache(),
		token: sha256.Sum256([]byte(o.Token)),
		etag:  configTag(o.Config),
	}
}

// ReadToken reads the bearer token from a file: its text without the space
// around it, which must not be empty.
func ReadToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read token file: %w", err)
	}
	t := strings.TrimSpace(string(b))
	if t == "" {
		return "", fmt.Errorf("read token file: %s is empty", path)
	}
	return t, nil
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it too
			panic(v)
		}
		s.slog.Error("panic in a catalog request", "method", r.Method, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
		writeError(w, r, &restError{Status: http.StatusInternalServerError, Type: "InternalServerError", Message: "internal error"})
	}()
	if err := s.serve(w, r); err != nil {
		s.fail(w, r, err)
	}
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) error {
	c, err := parseCall(r)
	if err != nil {
		return err
	}
	c.w = w
	rt, err := findRoute(r.Method, c.shape)
	if err != nil {
		return err
	}
	if !rt.open {
		if err := s.authorize(r); err != nil {
			return err
		}
	}
	if r.Body != nil {
		r.Body = http.MaxBytesReader(w, r.Body, requestBytesMax)
	}
	if c.prefix == "" {
		return rt.handle(s, r.Context(), c)
	}
	if err := s.pin(r.Context(), c, rt); err != nil {
		return err
	}
	err = rt.handle(s, r.Context(), c)
	if errors.Is(err, fs.ErrNotExist) {
		return s.unpinned(err)
	}
	return err
}

// authorize checks the bearer token. Hashes are compared, so that the time it
// takes tells nothing about the token, its length included.
func (s *server) authorize(r *http.Request) error {
	if s.o.Token == "" {
		return nil
	}
	kind, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "bearer") || !s.tokenIs(strings.TrimSpace(given)) {
		return &restError{Status: http.StatusUnauthorized, Type: "NotAuthorizedException",
			Message: "this catalog wants a bearer token: Authorization: Bearer …"}
	}
	return nil
}

func (s *server) tokenIs(given string) bool {
	h := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(h[:], s.token[:]) == 1
}

// state is what a read is answered from: the pinned state, else the head.
func (s *server) state(ctx context.Context, c *call) (*State, error) {
	if c.pinned != nil {
		return c.pinned, nil
	}
	if s.o.HeadAgeMax < 0 || !s.fresh.due(s.o.HeadAgeMax) {
		return s.log.Head(), nil
	}
	return s.refresh(ctx)
}

func (s *server) refresh(ctx context.Context) (*State, error) {
	started := time.Now()
	st, err := s.log.Refresh(ctx)
	if err != nil {
		return nil, unavailable("read the catalog's log", err)
	}
	s.fresh.seen(started)
	return st, nil
}

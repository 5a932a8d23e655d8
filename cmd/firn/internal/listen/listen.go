// Package listen is firn's one listener: the Iceberg REST catalog, metrics for
// Prometheus, health and status for machines, a page for people, and what the
// commands ask of a firn that runs.
package listen

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"firn/lake"
	"firn/wal"
)

// Mirror is what the commands ask of the running lake.
type Mirror interface {
	// Wait returns once every commit up to lsn is in the lake.
	Wait(ctx context.Context, lsn wal.LSN) (wal.LSN, error)
	// Hold stops the reading of the stream until Cut, for a moment.
	Hold(ctx context.Context) error
	// Cut makes an epoch of exactly the commits whose record starts before lsn.
	Cut(ctx context.Context, lsn wal.LSN) (wal.LSN, uint64, error)
	// Backlog tells what there is to rewrite of these tables, none: of all.
	Backlog(ctx context.Context, tables []string) (lake.Backlog, error)
	// Compact has it done, and returns at once.
	Compact(ctx context.Context, tables []string) (lake.Backlog, error)
	// CommittedLSN lies behind every commit so far: what `wait` waits for.
	CommittedLSN(ctx context.Context) (wal.LSN, error)
}

// Status is what /status says.
type Status struct {
	lake.Status
	Ready     bool   `json:"ready"`
	Version   string `json:"version"`
	Warehouse string `json:"warehouse"`
	Location  string `json:"location"`
	Database  string `json:"database,omitempty"` // empty: only the catalog is served
	// RetainedWALBytes is what Postgres keeps for the slot, -1 if not known;
	// the limit is max_slot_wal_keep_size, -1 if there is none.
	RetainedWALBytes      int64 `json:"retained_wal_bytes"`
	RetainedWALLimitBytes int64 `json:"retained_wal_limit_bytes"`
	// Waiters are other sessions that wait for a lock which firn holds.
	Waiters []string `json:"waiters,omitempty"`
	// Outage is why nothing is read at present, and since when.
	Outage      string     `json:"outage,omitempty"`
	OutageSince *time.Time `json:"outage_since,omitempty"`
}

// Options of a Listener. Mirror and Counters are nil where only the catalog is
// served.
type Options struct {
	Address  string
	Token    string       // empty: none is asked for
	Catalog  http.Handler // of /v1/…; checks the token itself
	Status   func() Status
	Mirror   Mirror
	Expire   func(ctx context.Context, dry bool) (*Expired, error) // with Mirror
	Counters *lake.Counters
	Version  string
	Logger   *slog.Logger
}

// Listener answers on one address.
type Listener struct {
	o       Options
	socket  net.Listener
	metrics *Metrics
	token   [sha256.Size]byte
}

// Open takes the address, so that a port in use is known before anything else
// is done. Run answers.
func Open(ctx context.Context, o Options) (*Listener, error) {
	socket, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Address, err)
	}
	return &Listener{o: o, socket: socket, metrics: newMetrics(o), token: sha256.Sum256([]byte(o.Token))}, nil
}

// Address is host:port, the port as it was chosen where 0 was asked for.
func (l *Listener) Address() string { return l.socket.Addr().String() }

// URL is the listener's address for clients on this machine.
func (l *Listener) URL() string {
	host, port, err := net.SplitHostPort(l.Address())
	if err != nil {
		return "http://" + l.Address()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Phase observes how long a part of a commit took.
func (l *Listener) Phase(phase string, d time.Duration) { l.metrics.phase(phase, d) }

// Close gives the address up, for a listener that was never run.
func (l *Listener) Close() error { return l.socket.Close() }

// Run answers until ctx ends.
func (l *Listener) Run(ctx context.Context) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	server := &http.Server{
		Handler:           l.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(l.o.Logger.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l.socket) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.Address(), err)
	case <-ctx.Done():
	}
	// Answers under way get a moment; those that wait for something don't.
	time.AfterFunc(500*time.Millisecond, cancel)
	end, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer stop()
	if err := server.Shutdown(end); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop serving %s: %w", l.Address(), err)
	}
	if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("stop serving %s: %w", l.Address(), err)
	}
	<-failed
	return nil
}

func (l *Listener) routes() http.Handler {
	mux := http.NewServeMux()
	// A page of another site must not be able to change anything.
	own := http.NewCrossOriginProtection()
	mux.Handle("/v1/", own.Handler(l.o.Catalog))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", l.ready)
	mux.Handle("GET /metrics", l.guard(promhttp.HandlerFor(l.metrics.registry, promhttp.HandlerOpts{})))
	mux.Handle("GET /status", l.guard(http.HandlerFunc(l.status)))
	mux.Handle("GET /{$}", l.guard(http.HandlerFunc(l.page)))
	if l.o.Mirror != nil {
		mux.Handle("GET /wait", l.guard(http.HandlerFunc(l.wait)))
		mux.Handle("POST /hold", own.Handler(l.guard(http.HandlerFunc(l.hold))))
		mux.Handle("GET /expire", l.guard(http.HandlerFunc(l.expire)))
		mux.Handle("POST /expire", own.Handler(l.guard(http.HandlerFunc(l.expire))))
		mux.Handle("GET /compact", l.guard(http.HandlerFunc(l.compact)))
		mux.Handle("POST /compact", own.Handler(l.guard(http.HandlerFunc(l.compact))))
		mux.Handle("POST /cut", own.Handler(l.guard(http.HandlerFunc(l.cut))))
	}
	return l.ownName(mux)
}

// ownName refuses requests for another name than this machine's where nothing
// but the address keeps others out: a page may come from a name that has since
// been made to point here, and would pass for our own (DNS rebinding).
func (l *Listener) ownName(next http.Handler) http.Handler {
	bound, ok := l.socket.Addr().(*net.TCPAddr)
	if l.o.Token != "" || !ok || !bound.IP.IsLoopback() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
		ip := net.ParseIP(host)
		// No browser leaves the name out.
		if host != "" && host != "localhost" && !strings.HasSuffix(host, ".localhost") && (ip == nil || !ip.IsLoopback()) {
			plain(w, http.StatusMisdirectedRequest, fmt.Sprintf("this firn answers to localhost and %s only, and was asked for %q; with --token-file it answers to any name\n", bound.IP, host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guard lets in only who has the token. Hashes are compared, so that the time
// it takes tells nothing.
func (l *Listener) guard(next http.Handler) http.Handler {
	if l.o.Token == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		sum := sha256.Sum256([]byte(strings.TrimSpace(given)))
		if !strings.EqualFold(kind, "bearer") || subtle.ConstantTimeCompare(sum[:], l.token[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			plain(w, http.StatusUnauthorized, "this firn wants a bearer token: Authorization: Bearer …\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // the client is gone if this fails
}

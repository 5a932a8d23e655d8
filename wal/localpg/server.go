package localpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// Options say what server Start starts. Only BinDir is needed.
type Options struct {
	// BinDir holds initdb and postgres: see Find.
	BinDir string
	// Dir is the data folder. Empty: a temporary one, which Close removes (and
	// a later Start, should this process be killed). One that does not exist or
	// is empty becomes a new cluster with superuser postgres, UTF8 and the C
	// locale; any other must have been made by Start. As root, the folder must
	// be Reachable; a test's own TempDir is not.
	Dir string
	// Port is the TCP port at 127.0.0.1; 0: a free one, kept over restarts.
	Port int
	// Settings go into the server's configuration, over the defaults:
	// wal_level=logical, 20 slots, 20 walsenders, no Unix socket, fsync=off.
	Settings map[string]string
	// HBA replaces pg_hba.conf by these lines; nil: local connections are
	// trusted.
	HBA []string
	// Log takes the server's log; nil: only the end is kept, for errors.
	Log io.Writer
	// Fsync turns fsync on: commits survive a crash of the machine.
	Fsync bool
	// StartTimeout bounds initdb and each start, crash recovery included;
	// 0: 60 s.
	StartTimeout time.Duration
	// StopTimeout is what a fast stop may take before it becomes an immediate
	// one (a walsender whose client doesn't read can hold it up); 0: 10 s.
	StopTimeout time.Duration
}

// configFile in the data folder has the settings, and says that Start made
// the cluster.
const configFile = "localpg.conf"

// killWait bounds the wait for a killed server's children and its port.
const killWait = 10 * time.Second

// Server is a running (or stopped, or killed) Postgres. Its methods may be
// called from several goroutines; they take turns.
type Server struct {
	o       Options
	acc     *account
	port    int
	tail    tail
	mu      sync.Mutex
	proc    *process
	tempDir string       // to be removed by Close
	lock    *flock.Flock // of tempDir
}

// Start makes the cluster where there is none, starts the server and returns
// once it accepts connections. ctx bounds the start, not the server's life:
// that ends with Stop, Kill or Close, or (on Linux) with this process.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.StartTimeout == 0 {
		o.StartTimeout = time.Minute
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 10 * time.Second
	}
	acc, err := serverAccount()
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, acc: acc, port: o.Port}
	if s.o.BinDir, err = filepath.Abs(o.BinDir); err != nil {
		return nil, fmt.Errorf("resolve %s: %w", o.BinDir, err)
	}
	if err := Reachable(s.o.BinDir); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	var err error
	if s.o.Dir == "" {
		err = s.makeTemp()
	} else {
		s.o.Dir, err = filepath.Abs(s.o.Dir)
	}
	if err != nil {
		return fmt.Errorf("prepare data folder: %w", err)
	}
	if err := Reachable(filepath.Dir(s.o.Dir)); err != nil {
		return err
	}
	if err := s.initialise(ctx); err != nil {
		return err
	}
	for try := 1; ; try++ {
		if s.o.Port == 0 {
			if s.port, err = freePort(); err != nil {
				return err
			}
		}
		err := s.launch(ctx)
		// Between freePort and the server's bind another process may be quicker.
		if err == nil || s.o.Port != 0 || try == 5 || !strings.Contains(err.Error(), "could not bind") {
			return err
		}
	}
}

// Port is the server's TCP port at 127.0.0.1.
func (s *Server) Port() int { return s.port }

// Dir is the data folder.
func (s *Server) Dir() string { return s.o.Dir }

// URL connects superuser postgres to a database, without TLS.
func (s *Server) URL(db string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + db, RawQuery: "sslmode=disable"}
	return u.String()
}

// LogTail is the end of the server's log (at most 16 KB).
func (s *Server) LogTail() string { return s.tail.String() }

// Configure adds settings to those of Options, for the next Restart (or
// Reload, where that suffices).
func (s *Server) Configure(settings map[string]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]string, len(s.o.Settings)+len(settings))
	for _, m := range []map[string]string{s.o.Settings, settings} {
		for k, v := range m {
			all[k] = v
		}
	}
	s.o.Settings = all
	return s.writeConfig(s.o.Dir)
}

// Reload makes the server read its configuration again.
func (s *Server) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return errors.New("reload Postgres: it isn't running")
	}
	return s.proc.signal(syscall.SIGHUP)
}

// Done is closed when the server process that runs now has ended; it is closed
// already when none does.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		c := make(chan struct{})
		close(c)
		return c
	}
	return s.proc.done
}

// Restart stops the server, if it runs, and starts it again on the same port.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stop(ctx, syscall.SIGINT); err != nil {
		return err
	}
	return s.launch(ctx)
}

// Stop is a fast shutdown: sessions end, a checkpoint is written. When it
// takes longer than StopTimeout, or ctx ends, it becomes an immediate one. A
// stopped server can be started again by Restart.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop(ctx, syscall.SIGINT)
}

// Kill ends the postmaster by SIGKILL and waits until its children are gone
// and the port is free, so that a Restart can follow.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kill()
}

// Close shuts the server down at once and removes a temporary data folder.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.stop(context.Background(), syscall.SIGQUIT)
	if s.tempDir != "" && err == nil {
		if err = os.RemoveAll(s.tempDir); err == nil {
			err = s.lock.Unlock()
			s.tempDir = ""
		}
	}
	return err
}

func (s *Server) stop(ctx context.Context, how syscall.Signal) error {
	if s.proc == nil {
		return nil
	}
	if s.proc.ended() { // by itself, or somebody else's hand: children may be left
		return s.kill()
	}
	if how == syscall.SIGINT {
		if err := s.proc.signal(how); err != nil {
			return fmt.Errorf("stop Postgres: %w", err)
		}
		timer := time.NewTimer(s.o.StopTimeout)
		defer timer.Stop()
		select {
		case <-s.proc.done:
			s.proc = nil
			return nil
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	if err := s.proc.signal(syscall.SIGQUIT); err != nil {
		return fmt.Errorf("stop Postgres: %w", err)
	}
	select {
	case <-s.proc.done:
		s.proc = nil
		return nil
	case <-time.After(killWait):
		return s.kill()
	}
}

func (s *Server) kill() error {
	if s.proc == nil {
		return nil
	}
	if err := s.proc.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill Postgres: %w", err)
	}
	began := time.Now()
	for {
		left := serverProcesses(s.o.Dir)
		if len(left) == 0 && s.proc.ended() && portFree(s.port) {
			s.proc = nil
			return nil
		}
		// A backend notices the postmaster's death when it next waits; one in
		// the middle of work may take long.
		if time.Since(began) > time.Second {
			for _, pid := range left {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
					return fmt.Errorf("kill Postgres' process %d: %w", pid, err)
				}
			}
		}
		if time.Since(began) > killWait {
			return fmt.Errorf("kill Postgres: after %v processes %v are left, port %d free: %t", killWait, left, s.port, portFree(s.port))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// launch starts the postmaster and waits until it accepts connections.
func (s *Server) launch(ctx context.Context) error {
	s.tail.Reset()
	// The server of a process that was killed just now may still be going down.
	// One that stays is another process' own: Postgres' error names it.
	for began := time.Now(); len(serverProcesses(s.o.Dir)) > 0 && time.Since(began) < killWait; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("start Postgres: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	cmd := exec.Command(filepath.Join(s.o.BinDir, "postgres"), "-D", s.o.Dir,
		"-c", "port="+strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1")
	s.prepare(cmd, syscall.SIGQUIT)
	p, err := run(cmd)
	if err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	s.proc = p
	ctx, cancel := context.WithTimeout(ctx, s.o.StartTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			s.proc = nil
			return fmt.Errorf("start Postgres: it ended (%v); its log:\n%s", p.err, s.tail.String())
		case <-ctx.Done():
			log := s.tail.String()
			return errors.Join(fmt.Errorf("start Postgres: %w; its log:\n%s", ctx.Err(), log), s.kill())
		case <-tick.C:
			if ready(s.o.Dir, p.pid) {
				return nil
			}
		}
	}
}

// prepare gives a command the account, environment, log and death signal that
// the server's processes need.
func (s *Server) prepare(cmd *exec.Cmd, death syscall.Signal) {
	cmd.Dir = "/" // ours may be closed to the other account
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	var log io.Writer = &s.tail
	if s.o.Log != nil {
		log = io.MultiWriter(&s.tail, s.o.Log)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes(s.acc, death)
	// A child that outlives the postmaster holds the log's pipe.
	cmd.WaitDelay = killWait
}

// ready reads postmaster.pid, which says so in its eighth line; the first is
// the process, for the file of a killed server stays.
func ready(dir string, pid int) bool {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(b), "\n")
	return len(lines) >= 8 && strings.TrimSpace(lines[0]) == strconv.Itoa(pid) && strings.TrimSpace(lines[7]) == "ready"
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return port, nil
}

func portFree(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

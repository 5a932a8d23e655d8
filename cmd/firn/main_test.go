package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// command makes a firn process that dies with this one. Its environment has
// no FIRN_… but those given, and its state folder is the test's.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := laketest.FirnBinary()
	require.NoError(t, err)
	cmd := exec.Command(path, args...)
	for _, v := range os.Environ() {
		if !regexp.MustCompile(`^(FIRN_|PG|XDG_|AWS_)`).MatchString(v) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, "XDG_STATE_HOME="+t.TempDir(), "PGPASSFILE=/nonexistent"), env...)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// firn runs a command to its end.
func firn(t *testing.T, env []string, args ...string) (code int, out, err string) {
	t.Helper()
	cmd := command(t, env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Start())
	stuck := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	if werr := cmd.Wait(); werr != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, werr, &exit)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// process is a firn that goes on.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string // of its listener
	log  *safeBuffer
	done chan struct{} // closed when it has ended
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

var saidURL = regexp.MustCompile(`(?:catalog|at) (http://[0-9.:]+),`)

// launch starts firn run or serve with a port of its own and waits until it
// has said where it listens.
func launch(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: command(t, env, append(args, "--listen", "127.0.0.1:0")...), log: &safeBuffer{}, done: make(chan struct{})}
	p.cmd.Stderr = p.log
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // its code is looked at by code
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("firn %v said:\n%s", args, p.log)
		}
	})
	require.Eventually(t, func() bool {
		m := saidURL.FindStringSubmatch(p.log.String())
		if m != nil {
			p.url = m[1]
		}
		return m != nil || p.ended()
	}, 30*time.Second, 10*time.Millisecond)
	require.NotEmpty(t, p.url, "it ended: %s", p.log)
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// code waits for the end and returns the exit code.
func (p *process) code() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.t.Fatal("firn does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop sends SIGTERM and returns the exit code.
func (p *process) stop() int {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	return p.code()
}

// ready waits for /readyz.
func (p *process) ready() {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", p.url+"/readyz", nil)
		require.NoError(p.t, err)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return p.ended()
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, time.Minute, 20*time.Millisecond)
	require.False(p.t, p.ended(), "it ended: %s", p.log)
}

// inProcess runs a command line without a process, for those that end before
// they reach anything.
func inProcess(args ...string) (code int, out, err string) {
	var stdout, stderr bytes.Buffer
	a := &app{in: bytes.NewReader(nil), out: &stdout, err: &stderr}
	code = a.main(context.Background(), args)
	return code, stdout.String(), stderr.String()
}

package laketest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// FirnProcess is `firn run`, built from this checkout, with its catalog at URL.
type FirnProcess struct {
	URL string

	cmd  *exec.Cmd
	log  *tailWriter
	done chan error
}

// FirnOptions say what a FirnProcess mirrors, and where to.
type FirnOptions struct {
	Postgres  string // connection URL
	Warehouse string // s3://bucket/prefix or a folder
	S3        *MinIOServer
	Freshness time.Duration
	Config    string // of firn.yaml
}

var notForFirn = regexp.MustCompile(`^(FIRN_|PG|XDG_|AWS_)`)

// Firn starts a mirror, and ends it after the test. It must not end before.
func Firn(t testing.TB, o FirnOptions) *FirnProcess {
	t.Helper()
	bin, err := FirnBinary()
	if err != nil {
		t.Fatal(err)
	}
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "firn.yaml")
	if err := os.WriteFile(config, []byte(o.Config), 0o600); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	f := &FirnProcess{URL: "http://" + address, log: &tailWriter{max: 64 << 10}, done: make(chan error, 1)}
	f.cmd = exec.Command(bin, "run", "--postgres", o.Postgres, "--warehouse", o.Warehouse, "--listen", address,
		"--freshness", o.Freshness.String(), "--state", filepath.Join(dir, "state"), "--config", config)
	for _, v := range os.Environ() {
		if !notForFirn.MatchString(v) {
			f.cmd.Env = append(f.cmd.Env, v)
		}
	}
	if o.S3 != nil {
		f.cmd.Args = append(f.cmd.Args, "--s3-endpoint", o.S3.Endpoint)
		f.cmd.Env = append(f.cmd.Env, o.S3.Env()...)
	}
	f.start(t)
	t.Cleanup(func() {
		_ = f.cmd.Process.Signal(syscall.SIGTERM) // if it has ended, Wait says so
		select {
		case err := <-f.done:
			if err != nil {
				t.Errorf("firn ended: %v", err)
			}
		case <-time.After(30 * time.Second):
			_ = f.cmd.Process.Kill()
			t.Errorf("firn does not stop")
		}
		if t.Failed() {
			t.Logf("the end of firn's log:\n%s", f.log)
		}
	})
	return f
}

func (f *FirnProcess) start(t testing.TB) {
	t.Helper()
	f.cmd.Stdout, f.cmd.Stderr = f.log, f.log
	if err := Spawn(f.cmd); err != nil {
		t.Fatal(err)
	}
	cmd := f.cmd
	go func() { f.done <- cmd.Wait() }()
}

// KillAndRestart ends firn by SIGKILL, wherever it is, and starts it again.
func (f *FirnProcess) KillAndRestart(t testing.TB) {
	t.Helper()
	_ = f.cmd.Process.Kill() // if it has ended, Wait says how
	if err := <-f.done; err == nil || err.Error() != "signal: killed" {
		t.Fatalf("firn ended before it was killed: %v\n%s", err, f.log)
	}
	old := f.cmd
	f.cmd = exec.Command(old.Path, old.Args[1:]...)
	f.cmd.Env = old.Env
	f.start(t)
}

// Log is the end of what firn wrote.
func (f *FirnProcess) Log() string { return f.log.String() }

// Settle returns once every table that can stream does, and goes on doing so
// over a look at the source's catalogs, and all that Postgres has is in the
// lake.
func (f *FirnProcess) Settle(t testing.TB) {
	t.Helper()
	const look = 11 * time.Second // firn run looks every ten seconds
	f.ready(t)
	time.Sleep(look)
	f.CatchUp(t)
}

// CatchUp returns once every table that can stream does, and all that Postgres
// has is in the lake.
func (f *FirnProcess) CatchUp(t testing.TB) {
	t.Helper()
	f.ready(t)
	if err := f.get(t.Context(), "/wait?timeout=60s"); err != nil {
		t.Fatalf("wait for firn: %v", err)
	}
}

func (f *FirnProcess) ready(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := f.get(t.Context(), "/readyz")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("firn is not ready: %v", err)
		}
		select {
		case err := <-f.done:
			f.done <- err
			t.Fatalf("firn ended: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (f *FirnProcess) get(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, strings.TrimSpace(string(body)))
	}
	return nil
}

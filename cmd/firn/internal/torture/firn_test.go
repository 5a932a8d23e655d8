package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
)

// firn is one lake and the process that mirrors into it, again and again.
type firn struct {
	t    testing.TB
	bin  string
	args []string
	lake []string // the flags that name the lake
	env  []string
	url  string // of the listener
	dir  string
	pg   string // the source, to ask it who waits for whom

	cmd  *exec.Cmd
	done chan struct{}
	err  error
	log  *bytes.Buffer // of the present process
	mu   sync.Mutex

	rewrites int // of data files, in all processes that have ended
}

func newFirn(t testing.TB, postgres string, s *laketest.MinIOServer, config string) *firn {
	t.Helper()
	bin, err := laketest.FirnBinary()
	require.NoError(t, err)
	port, err := laketest.FreePort()
	require.NoError(t, err)
	f := &firn{t: t, bin: bin, dir: t.TempDir(), pg: postgres, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	path := filepath.Join(f.dir, "firn.yaml")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	f.lake = []string{"--warehouse", "s3://" + s.Bucket(t) + "/shop", "--s3-endpoint", s.Endpoint}
	f.args = append([]string{"run", "--postgres", postgres, "--listen", fmt.Sprintf("127.0.0.1:%d", port), "--freshness", "200ms", "--state", filepath.Join(f.dir, "state"), "--config", path}, f.lake...)
	f.env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+s.AccessKey, "AWS_SECRET_ACCESS_KEY="+s.SecretKey, "AWS_REGION="+s.Region)
	t.Cleanup(func() {
		f.kill()
		if t.Failed() && f.log != nil {
			t.Logf("the end of firn's log:\n%s", laketest.LastLines(f.output(), 40))
		}
	})
	return f
}

// command is another command of firn's, on the same lake.
func (f *firn) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, f.bin, args...)
	cmd.Env = f.env
	return cmd
}

// start runs firn; failpoint "" means none.
func (f *firn) start(failpoint string) {
	f.t.Helper()
	f.cmd = exec.Command(f.bin, f.args...)
	f.cmd.Env = f.env
	if failpoint != "" {
		f.cmd.Env = append(f.cmd.Env, "FIRN_FAILPOINT="+failpoint)
	}
	f.log = &bytes.Buffer{}
	w := &locked{mu: &f.mu, w: f.log}
	f.cmd.Stdout, f.cmd.Stderr = w, w
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(f.t, f.cmd.Start())
	f.done = make(chan struct{})
	go func() { f.err = f.cmd.Wait(); close(f.done) }()
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (f *firn) output() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

// kill ends the process at once, if it runs.
func (f *firn) kill() {
	if f.cmd != nil {
		f.cmd.Process.Kill()
		<-f.done
		f.ended()
	}
}

// ended reads what the process that has ended said.
func (f *firn) ended() {
	f.t.Helper()
	f.cmd = nil
	said := f.output()
	f.rewrites += strings.Count(said, `msg="data files rewritten"`)
	for _, bad := range []string{"contradicts the stream", "would change the table's rows"} {
		if strings.Contains(said, bad) {
			f.t.Errorf("firn found a fault of its own:\n%s", said)
		}
	}
}

// dies waits for the process to be killed by its failpoint.
func (f *firn) dies(failpoint string, limit time.Duration) {
	f.t.Helper()
	select {
	case <-f.done:
		var exit *exec.ExitError
		require.ErrorAs(f.t, f.err, &exit, "firn ended by itself:\n%s", f.output())
		ws := exit.Sys().(syscall.WaitStatus)
		require.True(f.t, ws.Signaled() && ws.Signal() == syscall.SIGKILL, "firn ended with %v:\n%s", f.err, f.output())
		f.ended()
	case <-time.After(limit):
		pg := waits(f.pg)
		f.cmd.Process.Signal(syscall.SIGQUIT) // where does it hang?
		<-f.done
		f.cmd = nil
		f.t.Fatalf("failpoint %s was not reached within %s\n%s\n%s", failpoint, limit, pg, f.output())
	}
}

// alive fails the test if the process has ended.
func (f *firn) alive() {
	f.t.Helper()
	select {
	case <-f.done:
		f.t.Fatalf("firn ended: %v\n%s", f.err, f.output())
	default:
	}
}

func (f *firn) status() (lake.Status, error) {
	var s lake.Status
	r, err := http.Get(f.url + "/status")
	if err != nil {
		return s, err
	}
	defer r.Body.Close()
	return s, json.NewDecoder(r.Body).Decode(&s)
}

// notStreaming says which tables don't, and why.
func (f *firn) notStreaming() string {
	s, err := f.status()
	if err != nil {
		return fmt.Sprintf("its status is not known: %v", err)
	}
	var out []string
	for _, x := range s.Tables {
		if x.State != lake.Streaming {
			out = append(out, fmt.Sprintf("%s %s (%s)", x.Name, x.State, x.Reason))
		}
	}
	return fmt.Sprintf("epoch %d, durable %s, received %s; not streaming: %s", s.Epoch, s.DurableLSN, s.ReceivedLSN, strings.Join(out, ", "))
}

// ready waits until every table that can stream does.
func (f *firn) ready(limit time.Duration) {
	f.t.Helper()
	for until := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		f.alive()
		if r, err := http.Get(f.url + "/readyz"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(until) {
			f.t.Fatalf("firn is not ready after %s\n%s\n%s\n%s", limit, f.notStreaming(), waits(f.pg), f.output())
		}
	}
}

// looked waits until the process has looked at the catalogs, which it does ten
// seconds after its start for the first time.
func (f *firn) looked(limit time.Duration) {
	f.t.Helper()
	for until := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		f.alive()
		if r, err := http.Get(f.url + "/metrics"); err == nil {
			b, err := io.ReadAll(r.Body)
			r.Body.Close()
			if looks := looksTotal.FindSubmatch(b); err == nil && looks != nil && string(looks[1]) != "0" {
				return
			}
		}
		if time.Now().After(until) {
			f.t.Fatalf("firn has not looked at the catalogs after %s\n%s\n%s", limit, waits(f.pg), f.output())
		}
	}
}

var looksTotal = regexp.MustCompile(`(?m)^firn_catalog_looks_total (\d+)$`)

func (f *firn) post(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url+path, nil)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s: %s: %s", path, r.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

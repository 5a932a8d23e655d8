package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"firn/lake/laketest"
)

const peerHelp = `Another tool on the same work: --peer SCRIPT runs SCRIPT where firn would be run,
with this environment:

  BENCH_POSTGRES     connection URL of a superuser; wal_level is logical
  BENCH_TABLES       names of the tables, all in schema public
  BENCH_S3_ENDPOINT  the store, BENCH_BUCKET and BENCH_PREFIX the place in it;
                     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION the keys
  BENCH_STATE        a folder that stays from one start to the next

The script brings the tables into the lake, as they are in Postgres when it
starts. It then prints, for each table, a line "lake TABLE METADATA" (the URI of
the metadata.json to compare) and a line "done", and may end or go on until
SIGTERM. For drain it is started twice, before the backlog is written and after.
CPU and memory are those of the script and of what it starts itself.
`

// peer is another tool.
type peer struct {
	r      *rig
	prefix string
	tables []string

	cmd  *exec.Cmd
	done chan struct{} // it has printed "done", or ended
	end  chan struct{} // it has ended; err is valid then
	err  error

	mu    sync.Mutex
	lakes map[string]string // table → metadata
	said  bool              // done
}

// mirror prepares what is to be measured: firn, or the peer.
func (r *rig) mirror(lake, yaml string, tables []string) (mirror, error) {
	if r.o.peer == "" {
		f := r.firn(lake)
		f.yaml = yaml
		return f, nil
	}
	state := filepath.Join(r.dir, "state-"+lake)
	if err := os.MkdirAll(state, 0o755); err != nil {
		return nil, fmt.Errorf("make the peer's state folder: %w", err)
	}
	return &peer{r: r, prefix: lake, tables: tables}, nil
}

func (p *peer) start(context.Context) error {
	p.cmd = exec.Command(p.r.o.peer)
	p.cmd.Env = append(append(os.Environ(), p.r.s3.Env()...),
		"BENCH_POSTGRES="+p.r.url, "BENCH_TABLES="+strings.Join(p.tables, " "), "BENCH_S3_ENDPOINT="+p.r.s3.Endpoint,
		"BENCH_BUCKET="+bucket, "BENCH_PREFIX="+p.prefix, "BENCH_STATE="+filepath.Join(p.r.dir, "state-"+p.prefix))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start the peer: %w", err)
	}
	if err := laketest.Spawn(p.cmd); err != nil {
		return fmt.Errorf("start the peer: %w", err)
	}
	p.done, p.end, p.lakes, p.said = make(chan struct{}), make(chan struct{}), map[string]string{}, false
	go p.follow(out)
	return nil
}

// follow reads what the peer prints, until its end.
func (p *peer) follow(out io.Reader) {
	finished := sync.OnceFunc(func() { close(p.done) })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		f := strings.Fields(lines.Text())
		p.mu.Lock()
		switch {
		case len(f) == 3 && f[0] == "lake":
			p.lakes[f[1]] = f[2]
		case len(f) == 1 && f[0] == "done":
			p.said = true
			finished()
		}
		p.mu.Unlock()
	}
	p.err = p.cmd.Wait()
	close(p.end)
	finished()
}

func (p *peer) pid() int { return p.cmd.Process.Pid }

func (p *peer) reach(ctx context.Context, _ string) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.said {
		return errors.New(`the peer ended without "done"`)
	}
	return nil
}

func (p *peer) check(ctx context.Context, tables ...string) error {
	if err := p.r.openStore(ctx); err != nil {
		return err
	}
	for _, table := range tables {
		p.mu.Lock()
		metadata := p.lakes[table]
		p.mu.Unlock()
		if metadata == "" {
			return fmt.Errorf("the peer named no metadata of %s to compare", table)
		}
		if err := p.r.compareTable(ctx, table, "iceberg_scan("+laketest.Quote(metadata)+")"); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) stop(ctx context.Context) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.end:
		return nil // how a peer ends is its own affair
	case <-time.After(time.Minute):
		return errors.New("the peer does not stop")
	case <-ctx.Done():
		return ctx.Err()
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"firn/lake/laketest"
)

// mirror is what is measured: firn, or another tool.
type mirror interface {
	// start starts it and returns at once.
	start(ctx context.Context) error
	// pid is its process.
	pid() int
	// reach returns once the lake has every table, and every commit up to lsn.
	reach(ctx context.Context, lsn string) error
	// check compares tables of the lake with Postgres.
	check(ctx context.Context, tables ...string) error
	// stop ends it in good order.
	stop(ctx context.Context) error
}

// firn is `firn run` of this checkout, with its defaults.
type firn struct {
	r     *rig
	lake  string // the lake's prefix in the bucket
	args  []string
	yaml  string // settings
	store string // endpoint other than the rig's own

	url  string
	cmd  *exec.Cmd
	done chan struct{} // closed at its end; err is valid then
	err  error
	log  string // file
}

// firn prepares a mirror into a lake of that name.
func (r *rig) firn(lake string, args ...string) *firn { return &firn{r: r, lake: lake, args: args} }

// state is the folder of its row index.
func (f *firn) state() string { return filepath.Join(f.r.dir, "state-"+f.lake) }

func (f *firn) start(context.Context) error {
	binary, err := laketest.FirnBinary()
	if err != nil {
		return err
	}
	port, err := laketest.FreePort()
	if err != nil {
		return err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	f.url = "http://" + address
	settings := filepath.Join(f.r.dir, f.lake+".yaml")
	if err := os.WriteFile(settings, []byte(f.yaml), 0o600); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	f.log = filepath.Join(f.r.dir, f.lake+".log")
	log, err := os.OpenFile(f.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open firn's log: %w", err)
	}
	defer log.Close()
	endpoint := f.r.s3.Endpoint
	if f.store != "" {
		endpoint = f.store
	}
	args := append([]string{"run", "--postgres", f.r.url, "--warehouse", "s3://" + bucket + "/" + f.lake, "--s3-endpoint", endpoint,
		"--listen", address, "--state", f.state(), "--config", settings}, f.args...)
	for flag, path := range map[string]string{"--cpuprofile": f.r.o.cpuprofile, "--trace": f.r.o.trace} {
		if path != "" {
			args = append(args, flag, path)
		}
	}
	f.cmd = exec.Command(binary, args...)
	f.cmd.Stdout, f.cmd.Stderr = log, log
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FIRN_") && !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "AWS_") {
			f.cmd.Env = append(f.cmd.Env, v)
		}
	}
	f.cmd.Env = append(f.cmd.Env, f.r.s3.Env()...)
	if err := laketest.Spawn(f.cmd); err != nil {
		return fmt.Errorf("start firn: %w", err)
	}
	f.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		f.err = cmd.Wait()
		close(done)
	}(f.cmd, f.done)
	return nil
}

func (f *firn) pid() int { return f.cmd.Process.Pid }

// streaming returns once every table is loaded and the stream is read.
func (f *firn) streaming(ctx context.Context) error {
	for {
		_, err := get(ctx, f.url+"/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-f.done:
			return f.failed(fmt.Errorf("firn ended: %w", f.err))
		case <-ctx.Done():
			return f.failed(errors.Join(ctx.Err(), err))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (f *firn) reach(ctx context.Context, lsn string) error {
	if err := f.streaming(ctx); err != nil {
		return err
	}
	// firn's answer to a waiter is to publish what is open.
	if _, err := get(ctx, f.url+"/wait?timeout=30m&lsn="+lsn); err != nil {
		return f.failed(fmt.Errorf("wait for firn: %w", err))
	}
	return nil
}

// failed adds the end of firn's log to an error.
func (f *firn) failed(err error) error {
	b, readErr := os.ReadFile(f.log)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return fmt.Errorf("%w; its log ends: %s", err, b[max(0, len(b)-2000):])
}

func (f *firn) check(ctx context.Context, tables ...string) error {
	return f.r.compare(ctx, f.url, tables)
}

func (f *firn) stop(ctx context.Context) error {
	if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return f.failed(fmt.Errorf("stop firn: %w", err))
	}
	select {
	case <-f.done:
	case <-time.After(2 * time.Minute):
		return f.failed(errors.New("firn does not stop"))
	case <-ctx.Done():
		return ctx.Err()
	}
	if f.err != nil {
		return f.failed(fmt.Errorf("firn ended: %w", f.err))
	}
	return nil
}

// kill ends it as a power cut would.
func (f *firn) kill() error {
	if err := f.cmd.Process.Kill(); err != nil {
		return f.failed(fmt.Errorf("kill firn: %w", err))
	}
	<-f.done
	return nil
}

// forget removes its slot and publication; it has been stopped.
func (r *rig) forget(ctx context.Context) error {
	return r.exec(ctx, "select pg_drop_replication_slot(slot_name) from pg_replication_slots",
		"do $$ declare p text; begin for p in select pubname from pg_publication loop execute format('drop publication %I', p); end loop; end $$")
}

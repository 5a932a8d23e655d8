package laketest

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed workers/*.py
var workerFiles embed.FS

// worker is an engine in a process of its own that answers JSON lines, one
// request at a time.
type worker struct {
	name string
	cmd  *exec.Cmd
	log  *tailWriter

	mu   sync.Mutex
	in   io.WriteCloser
	out  *bufio.Reader
	dead error // why no further request can be answered
}

// startWorker runs a script of the workers folder under a Python interpreter.
func startWorker(interpreter, script string, args []string, env ...string) (*worker, error) {
	dir, err := workerScripts()
	if err != nil {
		return nil, fmt.Errorf("unpack worker scripts: %w", err)
	}
	w := &worker{name: script, log: &tailWriter{max: 16 << 10}}
	w.cmd = exec.Command(interpreter, append([]string{"-u", filepath.Join(dir, script)}, args...)...)
	w.cmd.Dir = dir
	// Engines must take what a test gives them, not the person's own settings.
	own := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.ContainsFunc([]string{"SPARK_", "PYSPARK_", "PYTHON", "PYICEBERG_", "AWS_"},
			func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	})
	w.cmd.Env = append(own, append([]string{
		"PYTHONDONTWRITEBYTECODE=1", "PYTHONUTF8=1", "TZ=UTC",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent",
	}, env...)...)
	w.cmd.Stderr = w.log
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReaderSize(out, 1<<20)
	if err := Spawn(w.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", script, err)
	}
	return w, nil
}

var workerScripts = sync.OnceValues(func() (string, error) {
	dir, err := SharedDir("workers")
	if err != nil {
		return "", err
	}
	files, err := workerFiles.ReadDir("workers")
	if err != nil {
		return "", err
	}
	for _, f := range files {
		b, err := workerFiles.ReadFile("workers/" + f.Name())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, f.Name()), b, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	return dir, nil
})

// call sends one request and decodes its answer into into (nil: not wanted).
// An answer that does not come before ctx ends kills the worker.
func (w *worker) call(ctx context.Context, op string, args map[string]any, into any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead != nil {
		return w.dead
	}
	request := map[string]any{"op": op}
	for k, v := range args {
		request[k] = v
	}
	line, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode request %s: %w", op, err)
	}

	stop := context.AfterFunc(ctx, func() { _ = w.cmd.Process.Kill() })
	defer stop()
	_, err = w.in.Write(append(line, '\n'))
	if err == nil {
		line, err = w.out.ReadBytes('\n')
	}
	if err != nil {
		_ = w.cmd.Process.Kill()
		err = errors.Join(err, ctx.Err(), w.cmd.Wait())
		w.dead = fmt.Errorf("worker %s has ended: %w; it wrote: %s", w.name, err, w.log)
		return w.dead
	}
	var answer struct {
		OK    json.RawMessage `json:"ok"`
		Error *string         `json:"error"`
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return fmt.Errorf("decode answer of %s: %w", w.name, err)
	}
	if answer.Error != nil {
		return errors.New(*answer.Error)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer.OK, into); err != nil {
		return fmt.Errorf("decode answer of %s: %w", w.name, err)
	}
	return nil
}

// stop ends the worker: politely by the end of its input, then by force.
func (w *worker) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead != nil {
		return
	}
	w.dead = fmt.Errorf("worker %s was stopped", w.name)
	_ = w.in.Close()
	kill := time.AfterFunc(10*time.Second, func() { _ = w.cmd.Process.Kill() })
	defer kill.Stop()
	_ = w.cmd.Wait() // its exit code tells nothing that an answer has not told
}

// tailWriter keeps the end of what is written to it.
type tailWriter struct {
	max int
	mu  sync.Mutex
	b   []byte
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
	if len(w.b) > 2*w.max {
		w.b = append(w.b[:0], w.b[len(w.b)-w.max:]...)
	}
	return len(p), nil
}

func (w *tailWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return tail(bytes.Clone(w.b))
}

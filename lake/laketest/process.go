package laketest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/gofrs/flock"
)

// spawner starts all children from one operating system thread that lives as
// long as the process. Pdeathsig fires when the parent *thread* ends, so a
// child started from a test's goroutine could be killed long before its time.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// Spawn starts a child that dies with this process, however this one ends.
func Spawn(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	done := make(chan error, 1)
	spawner() <- func() { done <- cmd.Start() }
	return <-done
}

// FreePort gives a TCP port that nobody listened on a moment ago.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// processDir is a folder for servers shared by all tests of this process. A
// lock held for the life of the process marks it as in use; each process first
// removes those of processes that are gone, since one that is killed cannot.
var processDir = sync.OnceValues(func() (string, error) {
	base := filepath.Join(os.TempDir(), fmt.Sprintf("firn-test-%d", os.Geteuid()))
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	// One at a time: a folder and its lock are not made in one step.
	turn := flock.New(filepath.Join(base, "turn"))
	if err := turn.Lock(); err != nil {
		return "", err
	}
	defer func() { _ = turn.Unlock() }()

	old, err := filepath.Glob(filepath.Join(base, "*.lock"))
	if err != nil {
		return "", err
	}
	for _, path := range old {
		l := flock.New(path)
		if ok, err := l.TryLock(); err != nil || !ok {
			continue // in use, or being removed by another
		}
		// The lock goes last and while held, so no two remove one folder.
		if os.RemoveAll(path[:len(path)-len(".lock")]) == nil {
			_ = os.Remove(path)
		}
		_ = l.Unlock()
	}

	dir, err := os.MkdirTemp(base, "p")
	if err != nil {
		return "", err
	}
	held = flock.New(dir + ".lock")
	if _, err := held.TryLock(); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
})

// held keeps the process folder's lock from being collected, and so closed.
var held *flock.Flock

// SharedDir makes a folder that lives as long as this process, below the
// temporary folder; one that is killed leaves it to the next to remove.
func SharedDir(name string) (string, error) {
	base, err := processDir()
	if err != nil {
		return "", fmt.Errorf("make a folder for shared test servers: %w", err)
	}
	return os.MkdirTemp(base, name+"-")
}

// LastLines is the end of a log: what a test found must not drown in it.
func LastLines(log string, n int) string {
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

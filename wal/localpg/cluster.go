package localpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// initialise makes the cluster in s.o.Dir unless it is there. It is made
// beside and renamed, so that a killed initdb leaves nothing half done.
func (s *Server) initialise(ctx context.Context) error {
	dir := s.o.Dir
	if _, err := os.Stat(filepath.Join(dir, configFile)); err == nil {
		return s.writeConfig(dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read data folder: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("make cluster: %s holds something that was not made here", dir)
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return fmt.Errorf("remove unfinished cluster: %w", err)
	}
	if err := mkdirOpen(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if err := os.Mkdir(part, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if err := s.own(part); err != nil {
		return err
	}
	locale := "C"
	if runtime.GOOS == "linux" {
		locale = "C.UTF-8"
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.StartTimeout)
	defer cancel()
	cmd := exec.Command(filepath.Join(s.o.BinDir, "initdb"), "-D", part, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale="+locale, "--no-sync")
	s.prepare(cmd, syscall.SIGKILL)
	p, err := run(cmd)
	if err != nil {
		return fmt.Errorf("run initdb: %w", err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		err := p.signal(syscall.SIGTERM) // initdb ends its own child
		<-p.done
		return errors.Join(fmt.Errorf("run initdb: %w", ctx.Err()), err)
	}
	if p.err != nil {
		return fmt.Errorf("run initdb: %w:\n%s", p.err, s.tail.String())
	}
	if err := appendLine(filepath.Join(part, "postgresql.conf"), "include '"+configFile+"'"); err != nil {
		return fmt.Errorf("configure cluster: %w", err)
	}
	if err := s.writeConfig(part); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace empty data folder: %w", err)
	}
	if err := os.Rename(part, dir); err != nil {
		return fmt.Errorf("install cluster: %w", err)
	}
	return nil
}

// writeConfig writes the settings, and pg_hba.conf where one was given. They
// stand in files, not on the command line, so that ALTER SYSTEM wins.
func (s *Server) writeConfig(dir string) error {
	set := map[string]string{
		"wal_level":             "logical",
		"max_replication_slots": "20",
		"max_wal_senders":       "20",
		"fsync":                 "off",
		// A socket's path is limited to 107 bytes, a data folder's is not.
		"unix_socket_directories": "",
		// In the data folder: nothing stays in /dev/shm after a kill.
		"dynamic_shared_memory_type": "mmap",
	}
	if s.o.Fsync {
		set["fsync"] = "on"
	}
	maps.Copy(set, s.o.Settings)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(set)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(set[name], "'", "''"))
	}
	files := map[string]string{configFile: b.String()}
	if s.o.HBA != nil {
		files["pg_hba.conf"] = strings.Join(s.o.HBA, "\n") + "\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("configure cluster: %w", err)
		}
		if err := s.own(path); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) own(path string) error {
	if s.acc == nil {
		return nil
	}
	if err := os.Chown(path, s.acc.uid, s.acc.gid); err != nil {
		return fmt.Errorf("give %s to user %s: %w", path, s.acc.name, err)
	}
	return nil
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(line + "\n"); err != nil {
		return err
	}
	return f.Close()
}

const tempPattern = "firn-postgres-*"

// makeTemp chooses a temporary data folder, locked as long as this process
// lives, and removes those whose process was killed.
func (s *Server) makeTemp() error {
	base, err := os.MkdirTemp("", tempPattern)
	if err != nil {
		return err
	}
	s.tempDir, s.lock = base, flock.New(filepath.Join(base, "lock"))
	if ok, err := s.lock.TryLock(); err != nil || !ok {
		return fmt.Errorf("lock %s: %w", base, err)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		return err
	}
	s.o.Dir = filepath.Join(base, "data")
	return sweepTemp(filepath.Dir(base))
}

// sweepTemp removes the temporary folders in dir that nobody holds. A minute's
// grace covers the moment between a folder's making and its locking.
func sweepTemp(dir string) error {
	found, err := filepath.Glob(filepath.Join(dir, tempPattern))
	if err != nil {
		return fmt.Errorf("list temporary folders: %w", err)
	}
	for _, base := range found {
		fi, err := os.Stat(base)
		if err != nil || time.Since(fi.ModTime()) < time.Minute || owner(fi) != os.Geteuid() {
			continue // gone meanwhile, fresh, or another user's
		}
		lock := flock.New(filepath.Join(base, "lock"))
		ok, err := lock.TryLock()
		if err != nil || !ok || len(serverProcesses(filepath.Join(base, "data"))) > 0 {
			if ok {
				err = lock.Unlock()
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("lock %s: %w", base, err)
			}
			continue
		}
		// What can't be removed now is tried again by the next start.
		removeErr := os.RemoveAll(base)
		if err := errors.Join(removeErr, lock.Unlock()); err != nil {
			return fmt.Errorf("remove abandoned %s: %w", base, err)
		}
	}
	return nil
}

package localpg

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// attributes makes a child that runs as acc (nil: as ourselves), that a
// terminal's Ctrl-C doesn't reach, and that gets signal when the thread that
// started it ends.
func attributes(acc *account, signal syscall.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: signal}
	if acc != nil {
		a.Credential = &syscall.Credential{Uid: uint32(acc.uid), Gid: uint32(acc.gid)}
	}
	return a
}

// serverProcesses lists the processes that work in a data folder. Postgres'
// children leave the postmaster's process group and, once it was killed, its
// parenthood too, but all stay in the data folder.
func serverProcesses(dataDir string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil // no procfs: the caller waits for the port only
	}
	if real, err := filepath.EvalSymlinks(dataDir); err == nil {
		dataDir = real
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if cwd, err := os.Readlink("/proc/" + e.Name() + "/cwd"); err != nil || cwd != dataDir {
			continue // gone, or not ours
		}
		if exe, err := os.Readlink("/proc/" + e.Name() + "/exe"); err == nil && filepath.Base(exe) == "postgres" {
			pids = append(pids, pid)
		}
	}
	return pids
}

func owner(fi os.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

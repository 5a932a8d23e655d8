//go:build !linux

package localpg

import (
	"os"
	"syscall"
)

// attributes makes a child that runs as acc (nil: as ourselves) and that a
// terminal's Ctrl-C doesn't reach. Only Linux can end a child with its parent.
func attributes(acc *account, _ syscall.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if acc != nil {
		a.Credential = &syscall.Credential{Uid: uint32(acc.uid), Gid: uint32(acc.gid)}
	}
	return a
}

// serverProcesses knows none without procfs: the caller waits for the port.
func serverProcesses(string) []int { return nil }

func owner(fi os.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

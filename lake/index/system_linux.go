package index

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// allocate gives file its size and its blocks.
func allocate(file *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(file.Fd()), 0, 0, size)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return zeroFill(file, size)
		default:
			return err
		}
	}
}

// populate makes all pages writable now. Where blocks are copied on write,
// allocate promises little; this asks for the blocks themselves, and answers
// with an error instead of SIGBUS. Kernels before 5.14 do not have it.
//
// The pages are made as huge ones where the kernel can, for a look-up misses the
// translation cache as surely as the others. Later, pages come back from the
// disk one by one: reading two megabytes for a slot would be the ruin of an
// index larger than memory. Advice that is not taken changes nothing.
func populate(m []byte) error {
	_ = unix.Madvise(m, unix.MADV_HUGEPAGE)
	defer advise(m)
	for {
		err := unix.Madvise(m, unix.MADV_POPULATE_WRITE)
		switch {
		case err == nil, errors.Is(err, unix.EINVAL):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		default:
			return err
		}
	}
}

// advise tells the kernel that reading ahead is of no use.
func advise(m []byte) {
	_ = unix.Madvise(m, unix.MADV_NOHUGEPAGE)
	_ = unix.Madvise(m, unix.MADV_RANDOM)
}

// retain takes that back: look-ups are reasons to keep a page again.
func retain(m []byte) { _ = unix.Madvise(m, unix.MADV_NORMAL) }

// huge asks for huge pages in anonymous memory.
func huge(m []byte) { _ = unix.Madvise(m, unix.MADV_HUGEPAGE) }

// kernelBootID is new each time the machine starts; "" where there is none.
func kernelBootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// memoryAvailable is how many bytes the machine, or the control group that the
// process runs in, could give to what is read from files; 0 if nobody knows.
func memoryAvailable() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var available int64
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			available = kb << 10
		}
	}
	b, err = os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return available
	}
	for line := range strings.Lines(string(b)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", group, "memory.max"))
		if err != nil {
			continue // the root has none
		}
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil { // else it is "max"
			available = min(available, limit)
		}
	}
	return available
}

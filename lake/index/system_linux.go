package index

import (
	"errors"
	"os"
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

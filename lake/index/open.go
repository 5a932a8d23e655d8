package index

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Open opens the index in dir, or makes an empty one. What it found is in
// State; only trouble with the folder itself is an error. It takes a lock that
// ends with the process ([ErrLocked]).
func Open(dir string, o Options) (*Index, error) {
	if o.Multi {
		o.Wide = true
	}
	if o.OverlayMemory == 0 {
		o.OverlayMemory = 32 << 20
	}
	if o.baseLog == 0 {
		o.baseLog, o.overlayLog, o.heapBytes = maxBaseLog, maxOverlayLog, heapBytes
	}
	o.directRows = cmp.Or(o.directRows, directRows)
	o.deltaLog, o.deltaFrom = cmp.Or(o.deltaLog, deltaLog), cmp.Or(o.deltaFrom, deltaFrom)
	o.deltaShare = cmp.Or(o.deltaShare, deltaShare)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create index folder: %w", err)
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open index folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock index folder %s: %w", dir, err)
	}
	x := &Index{dir: dir, o: o, lock: lock}
	if err := x.open(); err != nil {
		x.release()
		return nil, err
	}
	return x, nil
}

func (x *Index) open() error {
	if x.o.BootID == "" {
		x.o.BootID = kernelBootID()
	}
	boot, err := identity(x.lock, x.o.BootID)
	if err != nil {
		return fmt.Errorf("identify index folder: %w", err)
	}
	x.boot = boot
	x.scratch = &scratch{dir: x.dir, words: x.words(), maxLog: x.o.overlayLog, memory: x.o.OverlayMemory, heap: x.o.heapBytes}
	x.files = &segmentFiles{dir: x.dir, words: x.words(), maxLog: x.o.baseLog}

	journalPath := filepath.Join(x.dir, journalName)
	found, err := readJournal(journalPath)
	if errors.Is(err, os.ErrNotExist) {
		if err := x.begin(1, false); err != nil {
			return err
		}
		return x.sweep()
	}
	var bad *untrustedError
	if errors.As(err, &bad) {
		x.distrust(found, bad.Error())
		return nil
	}
	if err != nil {
		return err
	}
	if reason := x.doubt(found); reason != "" {
		x.distrust(found, reason)
		return nil
	}
	return x.adopt(journalPath, found)
}

// doubt returns why what the journal tells cannot be trusted, or "".
func (x *Index) doubt(r *recovered) string {
	switch {
	case r.words != x.words() || r.multi != x.o.Multi:
		return "it was made with other options"
	case r.phase == Untrusted:
		return "it was found untrusted before"
	case !r.clean && (r.boot == "" || r.boot != x.boot):
		return "the machine was restarted, or the folder copied, without a clean close"
	}
	return ""
}

// adopt takes over what a trusted journal tells.
func (x *Index) adopt(path string, r *recovered) error {
	x.seed, x.nextFile, x.names, x.pending = r.seed, r.nextFile, r.names, r.pending
	x.state = State{Phase: r.phase, N: r.n, Base: r.base, Snapshot: r.snapshot}
	x.files.seed, x.files.next = r.seed, r.nextSegment
	x.clean = r.clean
	x.base = x.newTable(x.files.alloc, x.swapBase, x.o.baseLog)
	var found, delta []*segment
	err := func() error {
		for _, d := range r.segments {
			s, err := x.files.open(d)
			if err != nil {
				return err
			}
			if d.delta {
				delta = append(delta, s)
			} else {
				found = append(found, s)
			}
			if r.phase == Applying {
				s.recount()
			}
		}
		if len(delta) > 0 {
			x.delta = x.newDelta()
			if err := x.delta.restore(delta); err != nil {
				return err
			}
			stagger(x.delta.all())
		}
		return x.base.restore(found)
	}()
	if err != nil {
		x.delta = nil
		for _, s := range append(found, delta...) {
			s.unmap()
		}
		x.distrust(r, err.Error())
		return nil
	}
	x.newOverlays()
	j, err := openJournal(path, r.length, r.full)
	if err != nil {
		return err
	}
	x.journal = j
	return x.sweep()
}

// distrust leaves the files alone and answers nothing until Reset.
func (x *Index) distrust(r *recovered, reason string) {
	x.state = State{Phase: Untrusted, Reason: reason}
	x.nextFile = 1
	if r != nil && r.nextFile > 0 {
		x.nextFile = r.nextFile
	}
	if r != nil {
		x.files.next = r.nextSegment
	}
	x.names = map[uint32]string{}
	x.base = x.newTable(x.files.alloc, x.swapBase, x.o.baseLog)
	x.newOverlays()
}

// begin starts an empty index with a new seed and a new journal.
func (x *Index) begin(nextFile uint32, sync bool) error {
	seed, err := newSeed()
	if err != nil {
		return fmt.Errorf("choose index seed: %w", err)
	}
	x.seed, x.nextFile, x.names, x.pending = seed, nextFile, map[uint32]string{}, nil
	x.state, x.loading, x.loaded, x.clean = State{}, false, nil, false
	x.files.seed = seed
	x.base, x.delta = x.newTable(x.files.alloc, x.swapBase, x.o.baseLog), nil
	x.newOverlays()
	return x.rewriteJournal(sync)
}

func (x *Index) words() int {
	if x.o.Wide {
		return 3
	}
	return 2
}

func (x *Index) newTable(alloc allocator, swap swapper, maxLog uint8) *table {
	return newTable(x.words(), x.o.Multi, x.seed, maxLog, alloc, swap)
}

func (x *Index) newOverlays() {
	for _, o := range []*overlay{x.filling, x.committing, x.spare} {
		if o != nil {
			o.free()
		}
	}
	x.filling, x.committing, x.spare = x.newOverlay(), nil, nil
}

// sweep removes files that no journal record names: what a kill left behind.
func (x *Index) sweep() error {
	known := map[string]bool{}
	for _, s := range x.segments() {
		known[segmentName(s.id)] = true
	}
	entries, err := os.ReadDir(x.dir)
	if err != nil {
		return fmt.Errorf("list index folder: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		ours := strings.HasPrefix(name, segmentPrefix) || strings.HasPrefix(name, overlayPrefix) || name == journalName+".tmp"
		if !ours || known[name] {
			continue
		}
		if err := os.Remove(filepath.Join(x.dir, name)); err != nil {
			return fmt.Errorf("remove leftover of index: %w", err)
		}
	}
	return nil
}

package index

import "fmt"

// The delta of a large index of unique keys is a table between the overlays and
// the segments of base. Changes all over base dirty a page each, and once base
// is larger than what the kernel lets lie about unwritten, each is soon written:
// 4 KB for a change of 16 bytes (100M keys: merges of 20,000 changes/s). So they
// are merged into the delta, which is small. When one of its segments is full,
// its changes, which are neighbours in base, go there together.
//
// Moving a segment changes nothing of what the index says: what is in both is
// the same. So a kill in the middle of it is harmless too, and a journal record
// puts an empty segment in its place at the end.
const (
	deltaLog = 16 // slots of its segments: flushed in some 10 ms
	// deltaFrom is how many rows of base are worth a delta, and deltaShare how
	// many of them one change in it stands for.
	deltaFrom  = 16 << 20
	deltaShare = 8
)

// deepDelta is the depth at which the delta has its share of base.
func (x *Index) deepDelta() (depth uint8) {
	for x.base.live()/deltaShare>>depth > 1<<x.o.deltaLog/2 {
		depth++
	}
	return depth
}

// beginDelta makes the delta if base is large enough by now.
func (x *Index) beginDelta() error {
	if x.delta != nil || x.o.Multi || x.base.live() < x.o.deltaFrom {
		return nil
	}
	depth := x.deepDelta()
	var all []*segment
	err := func() error {
		for i := range uint64(1) << depth {
			s, err := x.allocDelta(x.o.deltaLog, depth, i<<((64-depth)&63))
			if err != nil {
				return err
			}
			// They are to be full one after the other, not all at once.
			s.limit = max(1, s.limit*int(i+1)>>depth)
			all = append(all, s)
		}
		return x.journal.append(recordSwap(nil, all))
	}()
	if err != nil {
		for _, s := range all {
			s.free()
		}
		return fmt.Errorf("make delta: %w", err)
	}
	x.delta = x.newDelta()
	for _, s := range all {
		x.delta.point(s)
	}
	return nil
}

func (x *Index) newDelta() *table {
	t := x.newTable(x.allocDelta, x.swapBase, x.o.deltaLog+1) // no limits of its own for each
	t.full = x.flush
	return t
}

func (x *Index) allocDelta(log2, depth uint8, top uint64) (*segment, error) {
	s, err := x.files.alloc(log2, depth, top)
	if err == nil {
		s.delta = true
	}
	return s, err
}

// flush moves what is in a segment of the delta to base, and puts an empty one
// in its place, or two where base has grown.
func (x *Index) flush(s *segment) error {
	if err := x.base.prepare(s.each); err != nil {
		return err
	}
	err := s.each(func(k Key, w uint64) error {
		h := x.base.hash(k)
		if w == wordRemoved {
			x.base.remove(h, k)
			return nil
		}
		_, err := x.base.put(h, k, w)
		return err
	})
	if err != nil {
		return err
	}
	var repl []*segment
	add := func(depth uint8, top uint64) error {
		n, err := x.allocDelta(s.log2, depth, top)
		if err == nil {
			repl = append(repl, n)
		}
		return err
	}
	if s.depth >= x.deepDelta() {
		err = add(s.depth, s.top)
	} else if err = add(s.depth+1, s.top); err == nil {
		err = add(s.depth+1, s.top|1<<(63-s.depth))
	}
	if err == nil {
		err = x.swapBase(s, repl)
	}
	if err != nil {
		for _, n := range repl {
			n.free()
		}
		return fmt.Errorf("empty segment of delta: %w", err)
	}
	for _, n := range repl {
		x.delta.point(n)
	}
	return nil
}

// stored are the tables whose segments are in files.
func (x *Index) stored() []*table {
	if x.delta == nil {
		return []*table{x.base}
	}
	return []*table{x.base, x.delta}
}

// segments are all that are in files.
func (x *Index) segments() (all []*segment) {
	for _, t := range x.stored() {
		all = append(all, t.all()...)
	}
	return all
}

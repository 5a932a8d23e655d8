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
	// many of them one change in it stands for. An overlay of more changes than
	// these is neighbours enough: it goes to base itself. The delta's segments are
	// never made larger for what comes, so there its rows, in the order of the
	// hash, would pile up at the front of each.
	deltaFrom  = 16 << 20
	deltaShare = 8
)

// deltaRows is how many changes the delta is for.
func (x *Index) deltaRows() int64 { return x.base.live() / x.o.deltaShare }

// deepDelta is the depth at which the delta has its share of base.
func (x *Index) deepDelta() (depth uint8) {
	for rows := x.deltaRows(); rows>>depth > 1<<x.o.deltaLog/2; {
		depth++
	}
	return depth
}

// useDelta makes the delta if so many changes are to go by way of it, and moves
// all that is in it to base, and drops it, if they are not.
func (x *Index) useDelta(changes int64) error {
	switch many := changes > x.deltaRows(); {
	case x.delta != nil && many:
		return x.endDelta()
	case x.delta != nil || many || x.o.Multi || x.base.live() < x.o.deltaFrom:
		return nil
	}
	return x.beginDelta()
}

func (x *Index) beginDelta() error {
	depth := x.deepDelta()
	var all []*segment
	err := func() error {
		for i := range uint64(1) << depth {
			s, err := x.allocDelta(x.o.deltaLog, depth, i<<((64-depth)&63))
			if err != nil {
				return err
			}
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
	stagger(all)
	x.delta = x.newDelta()
	for _, s := range all {
		x.delta.point(s)
	}
	return nil
}

// stagger lets segments that hold as much as one another be full one after the
// other, not all within a few merges, and then so each time: they fill evenly.
func stagger(all []*segment) {
	for i, s := range all {
		s.limit = min(s.limit, s.used+max(1, (s.limit-s.used)*(i+1)/len(all)))
	}
}

func (x *Index) endDelta() error {
	all := x.delta.all()
	for _, s := range all {
		if err := x.move(s); err != nil {
			return err
		}
	}
	if err := x.journal.append(recordSwap(all, nil)); err != nil {
		return fmt.Errorf("drop delta: %w", err)
	}
	x.delta.free()
	x.delta = nil
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

// move brings what is in a segment of the delta to base.
func (x *Index) move(s *segment) error {
	if err := x.base.prepare(s.each); err != nil {
		return err
	}
	return s.each(func(k Key, w uint64) error {
		h := x.base.hash(k)
		if w == wordRemoved {
			x.base.remove(h, k)
			return nil
		}
		_, err := x.base.put(h, k, w)
		return err
	})
}

// flush moves what is in a segment of the delta to base, and puts an empty one
// in its place, or two where base has grown.
func (x *Index) flush(s *segment) error {
	err := x.move(s)
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

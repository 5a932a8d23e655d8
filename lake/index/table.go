package index

import (
	"errors"
	"fmt"
)

const (
	minLog        = 8  // slots of a first segment: one page or so
	maxBaseLog    = 20 // 16 MB of 16-byte slots: splits in some 10 ms
	maxOverlayLog = 17 // 2 MB of them: one huge page
	maxDepth      = 40 // a directory deeper than this means that the hash is broken
)

// allocator makes a zeroed segment. swapper makes replacement segments take an
// old one's place and frees the old one; on an error it has changed nothing.
type (
	allocator func(log2, depth uint8, top uint64) (*segment, error)
	swapper   func(old *segment, repl []*segment) error
)

// table is an extendible hash table: a directory of segments by the high bits
// of the hash. The segments of an index and its overlays are the same thing in
// different memory.
type table struct {
	words  int
	multi  bool
	seed   uint64
	maxLog uint8
	alloc  allocator
	swap   swapper
	keep   func(w uint64) bool    // nil: all; asked where a segment is copied
	full   func(s *segment) error // makes room where there is none; nil: the segment grows

	dir   []*segment
	shift uint8  // 64 - log2(len(dir))
	start uint64 // where a walk over a key's many rows begins
}

func newTable(words int, multi bool, seed uint64, maxLog uint8, alloc allocator, swap swapper) *table {
	t := &table{words: words, multi: multi, seed: seed, maxLog: maxLog, alloc: alloc, swap: swap}
	t.forget()
	return t
}

// forget makes the table empty without freeing anything. Its one segment has
// room for nothing, so that a look-up needs no special case and the first
// insertion makes a real one.
func (t *table) forget() {
	s := &segment{free: func() {}}
	s.shape(make([]uint64, 2*t.words), t.words, 1, 0, 0, t.maxLog)
	s.limit = 0
	t.dir, t.shift = []*segment{s}, 64
}

func (t *table) hash(k Key) uint64 {
	return mix((k.Lo ^ t.seed) + k.Hi*0x9e3779b97f4a7c15)
}

// all lists the segments in the order of the hash.
func (t *table) all() []*segment {
	var out []*segment
	for i := 0; i < len(t.dir); {
		s := t.dir[i]
		out = append(out, s)
		i += len(t.dir) >> s.depth
	}
	return out
}

func (t *table) live() int64 {
	var n int64
	for _, s := range t.all() {
		n += int64(s.live)
	}
	return n
}

// free gives memory and files back and leaves the table empty.
func (t *table) free() {
	for _, s := range t.all() {
		s.free()
	}
	t.forget()
}

// get returns the word of a unique key, wordEmpty if it is not there.
func (t *table) get(h uint64, k Key) uint64 {
	s := t.dir[h>>t.shift]
	i, mask, slots := s.home(h), s.mask, s.slots
	if t.words == 2 {
		for {
			j := i * 2
			w := slots[j+1]
			if slots[j] == k.Lo && w != wordDead || w == wordEmpty {
				return w
			}
			i = (i + 1) & mask
		}
	}
	for {
		j := i * 3
		w := slots[j+2]
		if slots[j] == k.Lo && slots[j+1] == k.Hi && w != wordDead || w == wordEmpty {
			return w
		}
		i = (i + 1) & mask
	}
}

// look asks for the slot where hash h belongs, so that it is near when it is needed.
func (t *table) look(h uint64) {
	s := t.dir[h>>t.shift]
	prefetch(&s.slots[int(s.home(h))*s.words])
}

// put sets the word of a unique key and returns the one it had.
func (t *table) put(h uint64, k Key, w uint64) (before uint64, err error) {
	for {
		s := t.dir[h>>t.shift]
		const none = ^uint64(0)
		spot := none
		i := s.home(h)
		for {
			c := s.word(i)
			if c == wordEmpty {
				break
			}
			if c == wordDead {
				if spot == none {
					spot = i
				}
			} else if s.key(i) == k {
				s.setWord(i, w)
				return c, nil
			}
			i = (i + 1) & s.mask
		}
		if spot == none {
			if s.used >= s.limit {
				if err := t.room(s); err != nil {
					return 0, err
				}
				continue
			}
			spot = i
			s.used++
		}
		s.setSlot(spot, k, w)
		s.live++
		return wordEmpty, nil
	}
}

// remove takes a unique key out and returns the word it had.
func (t *table) remove(h uint64, k Key) uint64 {
	s := t.dir[h>>t.shift]
	for i := s.home(h); ; i = (i + 1) & s.mask {
		c := s.word(i)
		if c == wordEmpty {
			return wordEmpty
		}
		if c != wordDead && s.key(i) == k {
			s.erase(i)
			s.live--
			return c
		}
	}
}

// each calls fn with every slot in use, nearly in the order of the hash.
func (t *table) each(fn func(k Key, w uint64) error) error {
	for _, s := range t.all() {
		if err := s.each(fn); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) room(s *segment) error {
	if t.full != nil {
		return t.full(s)
	}
	return t.grow(s, 0)
}

// grow replaces a segment that is full, or would be with coming more rows: by
// one of the same size if it is full of tombstones, by a larger one, or by two.
func (t *table) grow(s *segment, coming int) error {
	var repl []*segment
	add := func(log2, depth uint8, top uint64) error {
		n, err := t.alloc(log2, depth, top)
		if err == nil {
			repl = append(repl, n)
		}
		return err
	}
	var err error
	stay := s.stay()
	switch {
	case stay*2 < s.limit && coming == 0, coming > 0 && stay+coming <= s.limit:
		err = add(s.log2, s.depth, s.top)
	case s.log2 < t.maxLog:
		log2 := max(minLog, s.log2+1)
		for log2 < t.maxLog && stay+coming > 1<<log2*3/4 {
			log2++
		}
		err = add(log2, s.depth, s.top)
	case s.depth >= maxDepth:
		err = errors.New("hash does not spread the keys")
	default:
		if err = add(s.log2, s.depth+1, s.top); err == nil {
			err = add(s.log2, s.depth+1, s.top|1<<(63-s.depth))
		}
	}
	if err == nil {
		t.copy(s, repl)
		err = t.swap(s, repl)
	}
	if err != nil {
		for _, n := range repl {
			n.free()
		}
		return fmt.Errorf("grow segment of %d slots: %w", len(s.slots)/t.words, err)
	}
	for _, n := range repl {
		t.point(n)
	}
	return nil
}

// reserve gives an empty table segments that so many rows fill to about two
// thirds.
func (t *table) reserve(rows int64) error {
	log2, depth := uint8(minLog), uint8(0)
	for log2 < t.maxLog && rows > 1<<log2*5/8 {
		log2++
	}
	for rows>>depth > 1<<log2*5/8 && depth < maxDepth {
		depth++
	}
	var repl []*segment
	err := func() error {
		for i := range uint64(1) << depth {
			n, err := t.alloc(log2, depth, i<<(64-depth))
			if err != nil {
				return err
			}
			repl = append(repl, n)
		}
		return nil
	}()
	if err != nil {
		for _, n := range repl {
			n.free()
		}
		return err
	}
	t.free()
	for _, n := range repl {
		t.point(n)
	}
	return nil
}

// prepare makes room for all rows that each calls its function with, in the
// order of the hash, each time it is called. Rows that come in the order of the
// hash would else pile up at the front of a segment that has yet to grow, as a
// run that each next one walks along.
func (t *table) prepare(each func(func(k Key, w uint64) error) error) error {
	for {
		for _, s := range t.all() {
			s.coming = 0
		}
		count := func(want func(s *segment, h uint64, k Key) bool) bool {
			full := false
			// fn returns no error
			_ = each(func(k Key, w uint64) error {
				if !isLoc(w) {
					return nil
				}
				h := t.slotHash(k, w)
				s := t.dir[h>>t.shift]
				if want(s, h, k) {
					s.coming++
					full = full || s.used+s.coming > s.limit
				}
				return nil
			})
			return full
		}
		// Most changes are of keys that are there; these are told apart only
		// where it matters.
		if !count(func(*segment, uint64, Key) bool { return true }) {
			return nil
		}
		if !t.multi {
			maybe := map[*segment]bool{}
			for _, s := range t.all() {
				if s.used+s.coming > s.limit {
					maybe[s] = true
					s.coming = 0
				}
			}
			if !count(func(s *segment, h uint64, k Key) bool { return maybe[s] && t.get(h, k) == wordEmpty }) {
				return nil
			}
		}
		for _, s := range t.all() {
			if s.used+s.coming > s.limit {
				if err := t.grow(s, s.coming); err != nil {
					return err
				}
			}
		}
	}
}

// copy fills new segments with the rows of old.
func (t *table) copy(old *segment, repl []*segment) {
	for i := uint64(0); i <= old.mask; i++ {
		w := old.word(i)
		if w <= wordDead || t.keep != nil && isLoc(w) && !t.keep(w) {
			continue
		}
		k := old.key(i)
		h := t.slotHash(k, w)
		n := repl[0]
		if len(repl) == 2 && h>>(63-old.depth)&1 == 1 {
			n = repl[1]
		}
		j := n.home(h)
		for n.word(j) != wordEmpty {
			j = (j + 1) & n.mask
		}
		p := int(j) * n.words
		n.slots[p] = k.Lo
		if n.words == 3 {
			n.slots[p+1] = k.Hi
		}
		n.slots[p+n.words-1] = w
		n.used++
		if isLoc(w) || !t.multi {
			n.live++
		}
	}
}

// deepen doubles the directory until it tells apart segments of the depth.
func (t *table) deepen(depth uint8) {
	for 64-t.shift < depth {
		dir := make([]*segment, 2*len(t.dir))
		for i, d := range t.dir {
			dir[2*i], dir[2*i+1] = d, d
		}
		t.dir = dir
		t.shift--
	}
}

// point enters s in the directory.
func (t *table) point(s *segment) {
	t.deepen(s.depth)
	at := int(s.top >> t.shift)
	for i := range len(t.dir) >> s.depth {
		t.dir[at+i] = s
	}
}

// restore makes the directory of segments found on disk.
func (t *table) restore(found []*segment) error {
	if len(found) == 0 {
		return nil
	}
	t.dir, t.shift = []*segment{nil}, 64
	for _, s := range found {
		t.deepen(s.depth)
		at := int(s.top >> t.shift)
		for i := range len(t.dir) >> s.depth {
			if o := t.dir[at+i]; o != nil {
				return fmt.Errorf("segments %d and %d overlap", o.id, s.id)
			}
			t.dir[at+i] = s
		}
	}
	for _, s := range t.dir {
		if s == nil {
			return errors.New("segments leave a hole")
		}
	}
	return nil
}

// unmap frees the memory of all segments, but leaves their files.
func (t *table) unmap() {
	for _, s := range t.all() {
		s.unmap()
	}
	t.forget()
}

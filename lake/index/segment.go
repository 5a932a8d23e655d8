package index

import (
	"sync/atomic"
)

// A slot is its key (Lo; in wide indexes Lo, Hi) followed by a location word.
// Location words with File 0 are not locations:
const (
	wordEmpty   = 0          // never used since the segment was made
	wordDead    = 1          // tombstone: a probe goes on
	wordLevel   = 2          // + level: how far a key's many rows are spread (see multi.go)
	wordRemoved = 0xffffffff // in an overlay: the key is not there, whatever lies below
)

// segment is one open-addressing hash table with linear probing.
type segment struct {
	slots []uint64
	words int    // per slot
	mask  uint64 // slots - 1
	log2  uint8  // of the number of slots
	depth uint8  // how many high hash bits all its keys share
	top   uint64 // these bits, left-aligned

	live  int // rows
	used  int // slots not empty
	limit int // of used, before it grows

	coming int // rows that a merge is about to insert

	delta bool // it is one of the delta's

	id     uint64 // of its file; 0: none
	mapped []byte // nil: the slots are on the heap, or there are none
	free   func() // gives memory and file back
}

// shape sets the sizes; slots is the memory.
func (s *segment) shape(slots []uint64, words int, log2, depth uint8, top uint64, maxLog uint8) {
	s.slots, s.words = slots, words
	s.log2, s.depth, s.top = log2, depth, top
	s.mask = 1<<log2 - 1
	n := 1 << log2
	s.limit = n * 3 / 4
	if log2 == maxLog {
		// Segments fill evenly, so with one limit all would split within the
		// same merge; limits spread between 5/8 and 13/16 keep merges even.
		spread := int(mix(top^uint64(depth)) >> 54) // 0..1023
		s.limit = n*5/8 + n*3/16*spread/1024
	}
}

// home is the slot where hash h belongs.
func (s *segment) home(h uint64) uint64 {
	return (h << (s.depth & 63)) >> ((64 - s.log2) & 63)
}

// stay is how many slots a copy of the segment has in use at most: all but the
// tombstones. In a table of many rows per key these are more than its rows, and
// counting only those a copy of the same size could be too small again and
// again.
func (s *segment) stay() int {
	n := 0
	for i := uint64(0); i <= s.mask; i++ {
		if s.word(i) > wordDead {
			n++
		}
	}
	return n
}

func (s *segment) word(i uint64) uint64 { return s.slots[int(i)*s.words+s.words-1] }

func (s *segment) key(i uint64) Key {
	j := int(i) * s.words
	if s.words == 2 {
		return Key{Lo: s.slots[j]}
	}
	return Key{Lo: s.slots[j], Hi: s.slots[j+1]}
}

// each calls fn with every slot in use, nearly in the order of the hash.
func (s *segment) each(fn func(k Key, w uint64) error) error {
	for i := uint64(0); i <= s.mask; i++ {
		if w := s.word(i); w > wordDead {
			if err := fn(s.key(i), w); err != nil {
				return err
			}
		}
	}
	return nil
}

// setWord is the one store that makes a change visible; it is atomic so that
// it stays after the key's.
func (s *segment) setWord(i, w uint64) {
	atomic.StoreUint64(&s.slots[int(i)*s.words+s.words-1], w)
}

// setSlot fills a slot that is empty or dead.
func (s *segment) setSlot(i uint64, k Key, w uint64) {
	j := int(i) * s.words
	s.slots[j] = k.Lo
	if s.words == 3 {
		s.slots[j+1] = k.Hi
	}
	s.setWord(i, w)
}

// erase takes slot i out of use. Where the probe ends anyhow it becomes empty,
// and so do the tombstones before it.
func (s *segment) erase(i uint64) {
	if s.word((i+1)&s.mask) != wordEmpty {
		s.setWord(i, wordDead)
		return
	}
	for {
		s.setWord(i, wordEmpty)
		s.used--
		i = (i - 1) & s.mask
		if s.word(i) != wordDead {
			return
		}
	}
}

// recount sets live and used from the slots.
func (s *segment) recount() {
	s.live, s.used = 0, 0
	for j := s.words - 1; j < len(s.slots); j += s.words {
		w := s.slots[j]
		if w != wordEmpty {
			s.used++
		}
		if isLoc(w) {
			s.live++
		}
	}
}

// mix is Stafford's variant 13 of the MurmurHash3 finalizer
// (https://zimbry.blogspot.com/2011/09/better-bit-mixing-improving-on.html).
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

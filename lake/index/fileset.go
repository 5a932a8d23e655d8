package index

import "math/bits"

// fileSet is a set of file numbers: one bit for each number ever given.
type fileSet []uint64

func (s fileSet) has(no uint32) bool {
	i := no / 64
	return int(i) < len(s) && s[i]>>(no%64)&1 == 1
}

func (s *fileSet) add(no uint32) {
	for i := int(no / 64); i >= len(*s); {
		*s = append(*s, 0)
	}
	(*s)[no/64] |= 1 << (no % 64)
}

// beyond returns a number that is in s and not in o.
func (s fileSet) beyond(o fileSet) (uint32, bool) {
	for i, w := range s {
		if i < len(o) {
			w &^= o[i]
		}
		if w != 0 {
			return uint32(i*64 + bits.TrailingZeros64(w)), true
		}
	}
	return 0, false
}

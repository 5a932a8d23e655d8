package index

// Rows that share a key would make one long probe sequence, and a million equal
// rows a quadratic load. So a key with many rows is spread: at level l its rows
// have 4^l home slots, and a row's is chosen by its location. Each row keeps the
// level it was put at in the lowest four bits of Key.Hi, and the key's level
// stands in a slot of its own at the first home (wordLevel + l). A level's homes
// are among the next one's, so raising the level moves nothing: a row is at one
// of its homes for levels 0 to l, and all rows are at the homes of level l.
const (
	levelMask = 15 // of Key.Hi
	levelStep = 2  // bits of homes per level
	levelRows = 16 // of a level at one home before it is raised
	maxLevel  = 12
)

// sub is the number of w's home at a level.
func sub(w, level uint64) uint64 { return mix(w) & (1<<(levelStep*level) - 1) }

// homeHash is the hash of the i-th home of a key with hash h.
func homeHash(h, i uint64) uint64 {
	if i == 0 {
		return h
	}
	return mix(h + i*0x9e3779b97f4a7c15)
}

// slotHash is the hash that a stored slot was placed by.
func (t *table) slotHash(k Key, w uint64) uint64 {
	if !t.multi {
		return t.hash(k)
	}
	level := k.Hi & levelMask
	k.Hi &^= levelMask
	h := t.hash(k)
	if !isLoc(w) {
		return h
	}
	return homeHash(h, sub(w, level))
}

// chain calls fn with each slot of key k on the probe sequence of hash h, until
// fn returns false. k's level bits are 0.
func (t *table) chain(h uint64, k Key, fn func(s *segment, i, level, w uint64) bool) bool {
	s := t.dir[h>>t.shift]
	for i := s.home(h); ; i = (i + 1) & s.mask {
		j := i * 3
		w := s.slots[j+2]
		if w == wordEmpty {
			return true
		}
		hi := s.slots[j+1]
		if w == wordDead || s.slots[j] != k.Lo || hi&^levelMask != k.Hi {
			continue
		}
		if !fn(s, i, hi&levelMask, w) {
			return false
		}
	}
}

func (t *table) level(h uint64, k Key) (level uint64) {
	t.chain(h, k, func(_ *segment, _, _, w uint64) bool {
		if isLoc(w) {
			return true
		}
		level = w - wordLevel
		return false
	})
	return level
}

// findRow returns the slot of one row, nil if it is not there.
func (t *table) findRow(h uint64, k Key, word, level uint64) (found *segment, at uint64) {
	for l := range level + 1 {
		i := sub(word, l)
		if l > 0 && i == sub(word, l-1) {
			continue
		}
		t.chain(homeHash(h, i), k, func(s *segment, i, _, w uint64) bool {
			if w != word {
				return true
			}
			found, at = s, i
			return false
		})
		if found != nil {
			break
		}
	}
	return found, at
}

func (t *table) hasRow(h uint64, k Key, w uint64) bool {
	s, _ := t.findRow(h, k, w, t.level(h, k))
	return s != nil
}

// addRow puts one row of a key in, if it is not there.
func (t *table) addRow(h uint64, k Key, w uint64) error {
	for {
		level := t.level(h, k)
		if s, _ := t.findRow(h, k, w, level); s != nil {
			return nil
		}
		home := sub(w, level)
		at := homeHash(h, home)
		if level < maxLevel {
			rows := 0
			t.chain(at, k, func(_ *segment, _, l, w uint64) bool {
				if l == level && isLoc(w) && sub(w, l) == home {
					rows++
				}
				return true
			})
			if rows >= levelRows {
				if err := t.raise(h, k, wordLevel+level+1); err != nil {
					return err
				}
				continue
			}
		}
		s, err := t.insert(at, Key{Hi: k.Hi | level, Lo: k.Lo}, w)
		if err != nil {
			return err
		}
		s.live++
		return nil
	}
}

// raise sets the level of a key.
func (t *table) raise(h uint64, k Key, w uint64) error {
	done := !t.chain(h, k, func(s *segment, i, _, c uint64) bool {
		if isLoc(c) {
			return true
		}
		s.setWord(i, w)
		return false
	})
	if done {
		return nil
	}
	_, err := t.insert(h, k, w)
	return err
}

// insert fills the first slot that is free for hash h.
func (t *table) insert(h uint64, k Key, w uint64) (*segment, error) {
	for {
		s := t.dir[h>>t.shift]
		i := s.home(h)
		for s.word(i) > wordDead {
			i = (i + 1) & s.mask
		}
		if s.word(i) == wordEmpty {
			if s.used >= s.limit {
				if err := t.grow(s, 0); err != nil {
					return nil, err
				}
				continue
			}
			s.used++
		}
		s.setSlot(i, k, w)
		return s, nil
	}
}

// removeRow takes one row of a key out and reports whether it was there.
func (t *table) removeRow(h uint64, k Key, w uint64) bool {
	s, i := t.findRow(h, k, w, t.level(h, k))
	if s == nil {
		return false
	}
	s.erase(i)
	s.live--
	return true
}

// rows calls fn with each row of a key until it returns false. It takes the
// homes in another order each time: whoever deletes a key's rows one by one
// would else pass the emptied homes again and again. Consecutive homes would not
// do, for the lowest numbers are homes at every level and so the fullest.
func (t *table) rows(h uint64, k Key, fn func(w uint64) bool) bool {
	homes := uint64(1) << (levelStep * t.level(h, k))
	t.start++
	start := mix(t.start)
	step := start>>32 | 1 // odd: each home once
	for n := range homes {
		i := (start + n*step) & (homes - 1)
		more := t.chain(homeHash(h, i), k, func(_ *segment, _, level, w uint64) bool {
			if !isLoc(w) || sub(w, level) != i {
				return true // a level, or a row whose own home is another
			}
			return fn(w)
		})
		if !more {
			return false
		}
	}
	return true
}

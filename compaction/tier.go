package compaction

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// piece is a file as the rule sees it.
type piece struct {
	path       string
	bytes      int64 // as it lies on the store
	rows, dead int64
	size       int64 // what a merge keeps of it
	// Rewritten even alone:
	worn, unsorted bool
}

func newPiece(path string, bytes, rows, dead int64) piece {
	f := piece{path: path, bytes: bytes, rows: rows, dead: min(dead, rows)}
	f.size = max(1, f.liveBytes())
	return f
}

func (f piece) liveBytes() int64 {
	return int64(float64(f.bytes) * (1 - f.deadShare()))
}

func (f piece) deadShare() float64 {
	if f.rows == 0 {
		return 1
	}
	return float64(f.dead) / float64(f.rows)
}

func bySize(a, b piece) int { return cmp.Or(cmp.Compare(a.size, b.size), cmp.Compare(a.path, b.path)) }

// rule says which files, of those that may be merged with one another, are to
// be. One of less than half of full is small. As the others count for at least
// half each, there need never be more than two of them for each full of content;
// what of that is not used, and spare more, may be small.
//
// Merging costs least where the most files lie about. So nothing is done until
// there is one too many; then the smallest are merged, as far as each is no
// larger than those before it together. So what is merged comes to lie in a file
// at least twice as large, and is written again O(log n) times. If the files are
// so unlike that none is as small as those before it, the merge ends where one
// is nearest to that.
//
// Of commits of one size C(k+w, w) can become one file, with k files allowed
// before, while none is written again more than w times (Bentley and Saxe's
// k-binomial transform, Decomposable Searching Problems, 1980); the rule comes
// within a tenth of that for w < k/2, which are those that matter.
//
// Rejected: tiers, each of up to F-1 files F times as large as the last one's.
// For 1,100 commits to a file of half of full, F = 4 writes each row 7.0 times
// with up to 18 files, F = 8 5.0 times with 28; this rule 4.9 times with 12, 6.2
// times with 8.
type rule struct {
	full  int64
	spare int
	bytes int64 // limits of a merge of several files
	files int
	quiet bool    // merges that double a row's file, or fill it, don't wait for that
	busy  []piece // those that a rewrite is at work on
}

// merge is what becomes one file.
type merge struct {
	pieces []piece // ascending by size, never none
	reason string
}

// merges picks what to merge, no file twice. It sorts all.
func (r rule) merges(all []piece) []merge {
	slices.SortFunc(all, bySize)
	var spent, small []piece
	var content int64
	for _, f := range all {
		content += f.size
		switch {
		case f.worn || f.unsorted:
			spent = append(spent, f)
		case r.isSmall(f.size):
			small = append(small, f)
		}
	}
	var out []merge
	limit := r.limit(content)
	count := len(all) + len(r.busy) // once the merges are done
	for len(spent) > 0 {
		m := merge{pieces: spent[:r.fit(spent)]}
		spent = spent[len(m.pieces):]
		if r.quiet && len(spent) == 0 {
			m.pieces, small = r.with(m.pieces, small)
		}
		m.reason = m.spentReason()
		out = append(out, m)
		count -= len(m.pieces) - m.files()
	}
	for {
		n, ratio := r.run(small)
		m := merge{pieces: small[:n]}
		switch {
		case n < 2:
			return out
		case count > limit:
			m.reason = fmt.Sprintf("%d data files, more than %d: the %d smallest", count, limit, n)
		case r.quiet && (ratio <= 1 || !r.isSmall(m.size())):
			m.reason = fmt.Sprintf("%d small data files, and no new ones come", n)
		default:
			return out
		}
		out = append(out, m)
		small = small[n:]
		count -= n - 1
	}
}

// limit is how many files may lie about before the smallest are merged, the busy
// ones among them; content is that of the others.
func (r rule) limit(content int64) int {
	allowed := func(content int64) int { return r.spare + int(2*content/r.full) }
	if len(r.busy) == 0 {
		return allowed(content)
	}
	// However many are busy, the others may be what they may be alone, less half
	// of spare: else each new file would be merged at once.
	return max(allowed(content+merge{pieces: r.busy}.size())+r.spare/2, len(r.busy)+allowed(content)-r.spare/2)
}

// with adds the smallest of small to pieces that are rewritten anyway, as far as
// each is no larger than those before it together.
func (r rule) with(pieces, small []piece) (all, rest []piece) {
	all = slices.Clone(pieces)
	sum := merge{pieces: all}.size()
	for len(small) > 0 && small[0].size <= sum && r.fit(append(all, small[0])) > len(all) {
		sum += small[0].size
		all, small = append(all, small[0]), small[1:]
	}
	slices.SortStableFunc(all, bySize)
	return all, small
}

func (r rule) isSmall(size int64) bool { return 2*size < r.full }

// run is how many of the smallest to merge, at least two unless the limits
// forbid it, and how large the largest is against the others together.
func (r rule) run(small []piece) (n int, ratio float64) {
	var sum int64
	for i, f := range small[:r.fit(small)] {
		next := float64(f.size) / float64(sum)
		switch {
		case i == 0:
		case n > 0 && ratio <= 1 && next > 1:
			return n, ratio
		case n == 0 || next <= 1 || next < ratio:
			n, ratio = i+1, next
		}
		sum += f.size
	}
	return n, ratio
}

// fit is how many of the first pieces may go into one merge; one always.
func (r rule) fit(pieces []piece) int {
	var size, bytes int64
	for i, f := range pieces {
		size, bytes = size+f.size, bytes+f.bytes
		if i > 0 && (i >= r.files || size > r.full || bytes > r.bytes) {
			return i
		}
	}
	return len(pieces)
}

func (m merge) sum(of func(piece) int64) (n int64) {
	for _, f := range m.pieces {
		n += of(f)
	}
	return n
}

// files is how many it makes.
func (m merge) files() int { return min(1, int(m.rows())) }

func (m merge) size() int64      { return m.sum(func(f piece) int64 { return f.size }) }
func (m merge) bytes() int64     { return m.sum(func(f piece) int64 { return f.bytes }) }
func (m merge) liveBytes() int64 { return m.sum(piece.liveBytes) }
func (m merge) dead() int64      { return m.sum(func(f piece) int64 { return f.dead }) }
func (m merge) rows() int64      { return m.sum(func(f piece) int64 { return f.rows - f.dead }) }

func (m merge) spentReason() string {
	var of string
	if len(m.pieces) > 1 {
		of = fmt.Sprintf("%d files: ", len(m.pieces))
	}
	if !slices.ContainsFunc(m.pieces, func(f piece) bool { return f.worn }) {
		return of + "not in the table's sort order"
	}
	all := m.rows() + m.dead()
	percent := 100 * float64(m.dead()) / float64(max(1, all))
	if percent < 1 {
		return of + fmt.Sprintf("%.1g%% of %d rows dead", percent, all)
	}
	return of + fmt.Sprintf("%.0f%% of %d rows dead", math.Floor(percent), all)
}

func (m merge) rewrite(of Partition) Rewrite {
	w := Rewrite{Partition: of, Reason: m.reason, InBytes: m.bytes(), OutBytes: m.liveBytes(), OutRows: m.rows()}
	w.Gain.Bytes = w.InBytes - w.OutBytes
	for _, f := range m.pieces {
		w.Inputs = append(w.Inputs, f.path)
	}
	w.Gain.DataFiles, w.Gain.Deletes = len(w.Inputs)-w.OutFiles(), m.dead()
	return w
}

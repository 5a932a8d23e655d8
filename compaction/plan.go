// Package compaction keeps tables as fast to read as freshly written ones.
//
// [Plan] says what to rewrite. It is pure: it sees what the data files of a table
// look like, and does no I/O. Twice as many as need be may lie about, and a
// handful more; once there is one too many, the smallest are merged (rule). What
// is worn, dead for a good part, is rewritten as well, alone if need be. A rewrite
// makes one file of its inputs, or none if nothing in them is live: so the number
// of files never grows, the work of each is bounded, and of a table at rest there
// is soon nothing left to plan.
//
// Delete files and manifests are not planned for: each commit keeps those few by
// itself, whoever wrote them (lake/snapshot).
package compaction

import (
	"cmp"
	"slices"
)

// Table is what the planner sees of one table at one snapshot.
type Table struct {
	Data []DataFile
}

// Partition is what files must share to be merged: a partition of one spec.
type Partition struct {
	Spec   int
	Values string // of its fields, in one spelling; empty: unpartitioned
}

// DataFile is a live data file.
type DataFile struct {
	Path      string
	Partition Partition
	Bytes     int64
	Rows      int64 // as written, dead ones included
	Dead      int64
	// Young: it landed a short while ago. A partition without young files is
	// quiet, and leftovers are tidied up there that else wait for the next merge.
	Young bool
	// Resting: no row of it has died for a long while. What is dead in it is
	// left out by every reader of every row from now on.
	Resting bool
	// Asked: somebody wants nothing dead left in it, whatever that takes.
	Asked bool
	// Unsorted: the table has a sort order, which the file's rows are not in.
	Unsorted bool
	// Busy: a rewrite is at work on it. It is not planned for, but readers have
	// to open it until that is done.
	Busy bool
}

// Options say how tidy a table is kept. The zero value of a field is its
// default; TestLife measures what the defaults lead to.
type Options struct {
	// TargetBytes is the size of a full data file, the largest that a merge
	// makes; default 128 MB. One with less than half of that alive is small.
	TargetBytes int64
	// SpareFiles is how many data files a partition may have besides two for
	// each TargetBytes alive in it; default 8.
	SpareFiles int
	// MaxDead is the share of dead rows beyond which a data file is worn; default
	// 0.2. While new files come, a small one may have half dead, which its next
	// merge leaves out: where rows die young, each file would else be rewritten
	// alone, and soon again.
	MaxDead float64
	// MaxDeadResting is that share for one that rests; default 0.001. It is far
	// less, for readers pay for each row of a file of which any row is dead
	// (DuckDB looks them all up, PyIceberg numbers them all), and for a file that
	// rests it is paid off once.
	MaxDeadResting float64
	// RewriteBytes and RewriteFiles limit the inputs of a Rewrite of more than
	// one file; default twice TargetBytes, 64 files. Less than TargetBytes, or
	// than two files, would keep small files from being merged.
	RewriteBytes int64
	RewriteFiles int
}

func (o Options) withDefaults() Options {
	o.TargetBytes = cmp.Or(o.TargetBytes, 128<<20)
	o.SpareFiles = cmp.Or(o.SpareFiles, 8)
	o.MaxDead = cmp.Or(o.MaxDead, 0.2)
	o.MaxDeadResting = cmp.Or(o.MaxDeadResting, 0.001)
	o.RewriteBytes = cmp.Or(o.RewriteBytes, 2*o.TargetBytes)
	o.RewriteFiles = cmp.Or(o.RewriteFiles, 64)
	return o
}

// Rewrite makes one file of what is live in its inputs, in the table's sort order,
// if it has one.
type Rewrite struct {
	Partition Partition
	Inputs    []string // paths, smallest first
	Reason    string   // for people
	// InBytes is the size of the inputs, OutBytes what is expected of the
	// output, OutRows its rows: 0 if there is to be none.
	InBytes, OutBytes, OutRows int64
	Gain                       Gain
}

// OutFiles is 1, or 0 if nothing in the inputs is live.
func (w Rewrite) OutFiles() int { return min(1, int(w.OutRows)) }

// Plan says what to rewrite in a table, most urgent first. No file is in two of
// the rewrites, and any of them may be left out. What they make is planned for
// again, until a plan is empty.
func Plan(t Table, o Options) []Rewrite {
	o = o.withDefaults()
	r := rule{full: o.TargetBytes, spare: o.SpareFiles, bytes: o.RewriteBytes, files: o.RewriteFiles}
	var plan []Rewrite
	for of, group := range groups(t.Data, func(f DataFile) Partition { return f.Partition }) {
		r.quiet = !slices.ContainsFunc(group, func(f DataFile) bool { return f.Young })
		var pieces []piece
		r.busy = nil
		for _, f := range group {
			p := newPiece(f.Path, f.Bytes, f.Rows, f.Dead)
			if f.Busy {
				r.busy = append(r.busy, p)
				continue
			}
			p.worn = o.worn(p, r, f)
			p.unsorted = f.Unsorted && (r.quiet || f.Bytes >= OpenBytes)
			pieces = append(pieces, p)
		}
		for _, m := range r.merges(pieces) {
			plan = append(plan, m.rewrite(of))
		}
	}
	slices.SortFunc(plan, ByUrgency)
	return plan
}

// worn: too much of it is dead. Where new files come, what is dead in a small one
// is left to its next merge, unless it is more than the rest; and altogether in
// one that takes longer to open than to read.
func (o Options) worn(f piece, r rule, of DataFile) bool {
	most := o.MaxDead
	switch {
	case f.dead == f.rows:
		return true
	case of.Asked:
		return f.dead > 0
	case of.Resting:
		most = min(most, o.MaxDeadResting)
	case !r.quiet && r.isSmall(int64(float64(f.bytes)*(1-most))):
		most = max(most, 0.5)
	}
	return f.deadShare() > most && (r.quiet || f.bytes >= OpenBytes)
}

func groups[K comparable, V any](all []V, key func(V) K) map[K][]V {
	m := map[K][]V{}
	for _, v := range all {
		m[key(v)] = append(m[key(v)], v)
	}
	return m
}

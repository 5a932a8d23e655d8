// Package compaction keeps tables as fast to read as freshly written ones.
//
// [Plan] says what to rewrite. It is pure: it sees what the files of a table
// look like, and does no I/O. One rule serves data files, delete files and
// manifests (rule): twice as many as need be may lie about, and a handful more;
// once there is one too many, the smallest are merged. What is worn, dead for a
// good part, is rewritten as well, alone if need be. A rewrite makes one file of
// its inputs, or none if nothing in them is live: so the number of files never
// grows, the work of each is bounded, and of a table at rest there is soon
// nothing left to plan.
package compaction

import (
	"cmp"
	"math"
	"slices"
)

// Table is what the planner sees of one table at one snapshot. What a rewrite
// is at work on is left out, with the delete files of those data files alone.
type Table struct {
	Data      []DataFile
	Deletes   []DeleteFile
	Manifests []Manifest
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
	// Unsorted: the table has a sort order, which the file's rows are not in.
	Unsorted bool
}

// DeleteFile is a live file of position deletes. A v3 deletion vector is one
// with Of set; there is never a second of the same data file, so it is never
// merged and goes with its data file.
type DeleteFile struct {
	Path      string
	Partition Partition
	Bytes     int64
	Entries   int64
	Stale     int64  // those that name data files no longer live
	Of        string // the one data file that it names; empty: any of its partition
}

// Manifest is a manifest of the snapshot.
type Manifest struct {
	Path    string
	Spec    int
	Deletes bool // it lists delete files
	Bytes   int64
	Entries int64 // live ones
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
	// MaxDead is the share of dead rows beyond which a data file is worn, or
	// of stale entries a delete file; default 0.2.
	MaxDead float64
	// DeleteFiles is how many delete files a reader may have to open for one
	// data file, at least 2; default 8, which ingest keeps to by itself. Half
	// of them may be its own, half shared with others of its partition.
	DeleteFiles int
	// ManifestEntries is the size of a full manifest; default 2,048.
	ManifestEntries int64
	// SpareManifests is how many there may be of a spec's data files, and of its
	// delete files, besides two for each ManifestEntries; default 16, which
	// ingest keeps to by itself.
	SpareManifests int
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
	o.DeleteFiles = cmp.Or(o.DeleteFiles, 8)
	o.ManifestEntries = cmp.Or(o.ManifestEntries, 2048)
	o.SpareManifests = cmp.Or(o.SpareManifests, 16)
	o.RewriteBytes = cmp.Or(o.RewriteBytes, 2*o.TargetBytes)
	o.RewriteFiles = cmp.Or(o.RewriteFiles, 64)
	return o
}

// Kind says what a Rewrite is of.
type Kind int

// The kinds of Rewrite.
const (
	DataFiles Kind = iota
	DeleteFiles
	Manifests
)

func (k Kind) String() string { return [...]string{"data files", "delete files", "manifests"}[k] }

// Rewrite makes one file of what is live in its inputs: the rows of data files
// (in the table's sort order, if it has one), the entries of delete files or
// of manifests.
type Rewrite struct {
	Kind      Kind
	Partition Partition // of manifests: the spec
	Inputs    []string  // paths, smallest first
	Reason    string    // for people
	// InBytes is the size of the inputs, OutBytes what is expected of the
	// output, OutRows its rows or entries: 0 if there is to be none.
	InBytes, OutBytes, OutRows int64
	Gain                       Gain
}

// OutFiles is 1, or 0 if nothing in the inputs is live.
func (w Rewrite) OutFiles() int { return min(1, int(w.OutRows)) }

// Plan says what to rewrite in a table, most urgent first. No file is in two of
// the rewrites, and any of them may be left out. What they make is planned for
// again, until a plan is empty.
func Plan(t Table, o Options) []Rewrite {
	p := planner{o: o.withDefaults(), young: map[Partition]bool{}, own: map[string][]DeleteFile{}, rewritten: map[string]bool{}}
	for _, f := range t.Data {
		p.young[f.Partition] = p.young[f.Partition] || f.Young
	}
	for _, d := range t.Deletes {
		if d.Of != "" {
			p.own[d.Of] = append(p.own[d.Of], d)
		}
	}
	p.dataFiles(t.Data)
	p.deleteFiles(t.Deletes)
	p.manifests(t.Manifests)
	slices.SortFunc(p.plan, ByUrgency)
	return p.plan
}

type planner struct {
	o         Options
	young     map[Partition]bool
	own       map[string][]DeleteFile // by the data file that they name
	rewritten map[string]bool         // data files
	plan      []Rewrite
}

func (p *planner) dataFiles(files []DataFile) {
	r := rule{full: p.o.TargetBytes, spare: p.o.SpareFiles, bytes: p.o.RewriteBytes, files: p.o.RewriteFiles,
		noun: "data files", unit: "rows", dead: "dead"}
	for of, group := range groups(files, func(f DataFile) Partition { return f.Partition }) {
		r.quiet = !p.young[of]
		pieces := make([]piece, len(group))
		for i, f := range group {
			pieces[i] = newPiece(f.Path, f.Bytes, f.Rows, f.Dead)
			pieces[i].worn = p.worn(pieces[i], r.quiet)
			pieces[i].unsorted = f.Unsorted && (r.quiet || f.Bytes >= OpenBytes)
		}
		for _, m := range r.merges(pieces) {
			w := m.rewrite(DataFiles, of)
			w.Gain.DataFiles = len(w.Inputs) - w.OutFiles()
			w.Gain.Deletes = m.dead()
			for _, path := range w.Inputs {
				p.rewritten[path] = true
				for _, d := range p.own[path] {
					w.Gain.DeleteFiles++
					w.Gain.Bytes += d.Bytes
				}
			}
			p.plan = append(p.plan, w)
		}
	}
}

// deleteFiles plans for those whose data file stays.
func (p *planner) deleteFiles(files []DeleteFile) {
	r := rule{full: math.MaxInt64, spare: max(1, p.o.DeleteFiles/2), bytes: p.o.RewriteBytes, files: p.o.RewriteFiles,
		unit: "entries", dead: "stale"}
	type scope struct {
		Partition
		of string
	}
	for of, group := range groups(files, func(d DeleteFile) scope { return scope{d.Partition, d.Of} }) {
		if p.rewritten[of.of] {
			continue
		}
		r.noun = "delete files of one data file"
		if of.of == "" {
			r.noun = "shared delete files"
		}
		pieces := make([]piece, len(group))
		for i, d := range group {
			pieces[i] = newPiece(d.Path, d.Bytes, d.Entries, d.Stale)
			pieces[i].worn = p.worn(pieces[i], !p.young[of.Partition])
		}
		for _, m := range r.merges(pieces) {
			w := m.rewrite(DeleteFiles, of.Partition)
			w.Gain.DeleteFiles = len(w.Inputs) - w.OutFiles()
			p.plan = append(p.plan, w)
		}
	}
}

func (p *planner) manifests(files []Manifest) {
	r := rule{full: p.o.ManifestEntries, spare: p.o.SpareManifests, bytes: p.o.RewriteBytes, files: p.o.RewriteFiles,
		unit: "entries"}
	type scope struct {
		spec    int
		deletes bool
	}
	for of, group := range groups(files, func(m Manifest) scope { return scope{m.Spec, m.Deletes} }) {
		r.noun = "manifests of data files"
		if of.deletes {
			r.noun = "manifests of delete files"
		}
		var pieces []piece
		for _, m := range group {
			if m.Entries == 0 {
				continue // the next commit drops it
			}
			f := newPiece(m.Path, m.Bytes, m.Entries, 0)
			f.size = m.Entries
			pieces = append(pieces, f)
		}
		for _, m := range r.merges(pieces) {
			w := m.rewrite(Manifests, Partition{Spec: of.spec})
			w.Gain.Manifests = len(w.Inputs) - w.OutFiles()
			p.plan = append(p.plan, w)
		}
	}
}

// worn: too much of it is dead. Where new files come, the dead rows of one that
// takes longer to open than to read are left to its next merge.
func (p *planner) worn(f piece, quiet bool) bool {
	return f.dead == f.rows || f.deadShare() > p.o.MaxDead && (quiet || f.bytes >= OpenBytes)
}

func groups[K comparable, V any](all []V, key func(V) K) map[K][]V {
	m := map[K][]V{}
	for _, v := range all {
		m[key(v)] = append(m[key(v)], v)
	}
	return m
}

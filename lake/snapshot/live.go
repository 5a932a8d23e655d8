package snapshot

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/iceberg-go"
)

// entry is a live manifest entry.
type entry struct {
	file                   iceberg.DataFile
	snapshot, sequence     int64
	fileSequence           int64
	home                   *manifest // the manifest that holds it; set by Adopt and Load only
	rowIDAssigned          bool      // v3 data files: file has its first row id
	contentBytes, fileRows int64     // what the file adds to the totals
}

func newEntry(f iceberg.DataFile, snapshot, sequence int64) *entry {
	e := &entry{file: f, snapshot: snapshot, sequence: sequence, fileSequence: sequence, fileRows: f.Count(), contentBytes: f.FileSizeBytes()}
	if f.FileFormat() == iceberg.PuffinFile {
		if n := f.ContentSizeInBytes(); n != nil {
			e.contentBytes = *n
		}
	}
	return e
}

// manifest is a manifest of the current snapshot, with its live entries.
type manifest struct {
	file    iceberg.ManifestFile
	entries []*entry
	// unassigned: of a table since upgraded to v3; its files get their first
	// row ids when it is written again, with the next commit.
	unassigned bool
}

// dataFile is a live data file.
type dataFile struct {
	entry       *entry
	path        string
	rows, bytes int64
	partition   string
	dead        *roaring.Bitmap // nil: none
	deletes     []*deleteFile   // the live ones that name it
}

func (f *dataFile) deadRows() uint64 {
	if f.dead == nil {
		return 0
	}
	return f.dead.GetCardinality()
}

// sortOrder is the id of the order that the rows are in; 0: none.
func (f *dataFile) sortOrder() int {
	if id := f.entry.file.SortOrderID(); id != nil {
		return *id
	}
	return 0
}

// deleteFile is a live position-delete file, or a deletion vector.
type deleteFile struct {
	entry     *entry
	partition string
	vector    bool
	shared    bool // may name several data files
	// rows holds the positions by data file, of live data files only. Those of
	// a vector are the data file's dead, and not kept twice.
	rows  map[string]*roaring.Bitmap
	count uint64 // positions in rows
}

// partitionKey tells the partitions of all specs apart.
func partitionKey(f iceberg.DataFile) string {
	values := f.Partition()
	type kv struct {
		id int
		v  any
	}
	var kvs []kv
	for id, v := range values {
		if v != nil { // a text may be "<nil>"
			kvs = append(kvs, kv{id, v})
		}
	}
	slices.SortFunc(kvs, func(a, b kv) int { return cmp.Compare(a.id, b.id) })
	var b strings.Builder
	fmt.Fprint(&b, f.SpecID())
	for _, p := range kvs {
		fmt.Fprintf(&b, "\x00%d=%v", p.id, p.v)
	}
	return b.String()
}

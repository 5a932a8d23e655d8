package snapshot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

const (
	// scopedFiles is how many touched data files get a v2 delete file each; if
	// more are touched, each partition gets one for all of its.
	scopedFiles = 16
	// liveDeletes bounds the delete files of a data file: half of them of its
	// own, half shared with others of its partition.
	liveDeletes = 8
	// mergeRatio ends a merge before a file that is so many times larger than
	// all smaller ones together, so that a position is written O(log) times.
	mergeRatio = 3

	deletePathID = 2147483546 // Iceberg's reserved ids of a delete file's columns
	deletePosID  = 2147483545
)

// mergePrefix says how many of the smallest of sizes (ascending) to merge so
// that at most limit files remain: 0 if there are no more than that.
func mergePrefix(sizes []uint64, limit int) int {
	if len(sizes) <= limit {
		return 0
	}
	n, sum := 1, sizes[0]
	for n < len(sizes) && (n < len(sizes)-limit+1 || sizes[n] <= mergeRatio*sum) {
		sum += sizes[n]
		n++
	}
	return n
}

// positionDeletes plans and encodes v2 delete files for the newly dead rows.
func (p *prepared) positionDeletes(files []*dataFile) error {
	groups := map[string][]*dataFile{}
	for _, f := range files {
		groups[f.partition] = append(groups[f.partition], f)
	}
	for _, partition := range slices.Sorted(maps.Keys(groups)) {
		group := groups[partition]
		if len(files) > scopedFiles && len(group) > 1 {
			rows := make(map[string]*roaring.Bitmap, len(group))
			for _, f := range group {
				rows[f.path] = p.dead[f]
			}
			if err := p.mergeDeletes(p.t.shared[partition], group[0], true, rows); err != nil {
				return err
			}
			continue
		}
		for _, f := range group {
			own := slices.DeleteFunc(slices.Clone(f.deletes), func(d *deleteFile) bool { return d.shared })
			if err := p.mergeDeletes(own, f, false, map[string]*roaring.Bitmap{f.path: p.dead[f]}); err != nil {
				return err
			}
		}
	}
	return nil
}

// mergeDeletes writes a delete file with rows, and with those of the smallest
// of have where there are too many, which it replaces. of is a data file of
// the partition.
func (p *prepared) mergeDeletes(have []*deleteFile, of *dataFile, shared bool, rows map[string]*roaring.Bitmap) error {
	have = slices.DeleteFunc(slices.Clone(have), func(d *deleteFile) bool { return p.gone[d] })
	slices.SortStableFunc(have, func(a, b *deleteFile) int {
		switch {
		case a.count < b.count:
			return -1
		case a.count > b.count:
			return 1
		}
		return 0
	})
	var count uint64
	for _, r := range rows {
		count += r.GetCardinality()
	}
	sizes := []uint64{count} // the new one is always part of a merge
	for _, d := range have {
		sizes = append(sizes, d.count)
	}
	if n := mergePrefix(sizes, liveDeletes/2); n > 1 {
		rows = maps.Clone(rows)
		for _, d := range have[:n-1] {
			for path, more := range d.rows {
				if f := p.t.byPath[path]; f == nil || p.removed[f] {
					continue
				}
				if r := rows[path]; r != nil {
					rows[path] = roaring.Or(r, more)
				} else {
					rows[path] = more
				}
			}
			p.removeDelete(d)
		}
	}
	return p.writeDeletes(of, shared, rows)
}

// writeDeletes encodes a Parquet delete file, sorted by path and position.
func (p *prepared) writeDeletes(of *dataFile, shared bool, rows map[string]*roaring.Bitmap) error {
	key, uri := p.t.dataName("-deletes.parquet")
	paths := slices.Sorted(maps.Keys(rows))
	var count uint64
	var lowest, highest uint32
	lowest = ^uint32(0)
	for _, path := range paths {
		count += rows[path].GetCardinality()
		lowest, highest = min(lowest, rows[path].Minimum()), max(highest, rows[path].Maximum())
	}
	body, err := encodeDeletes(paths, rows)
	if err != nil {
		return fmt.Errorf("encode delete file: %w", err)
	}
	spec, err := p.meta.spec(of.entry.file.SpecID())
	if err != nil {
		return err
	}
	b, err := iceberg.NewDataFileBuilder(spec, iceberg.EntryContentPosDeletes, uri, iceberg.ParquetFile,
		of.entry.file.Partition(), nil, nil, int64(count), int64(len(body)))
	if err != nil {
		return fmt.Errorf("describe delete file: %w", err)
	}
	both := map[int]int64{deletePathID: int64(count), deletePosID: int64(count)}
	b.ValueCounts(both).NullValueCounts(map[int]int64{deletePathID: 0, deletePosID: 0}).
		LowerBoundValues(map[int][]byte{deletePathID: []byte(paths[0]), deletePosID: position(lowest)}).
		UpperBoundValues(map[int][]byte{deletePathID: []byte(paths[len(paths)-1]), deletePosID: position(highest)})
	if len(paths) == 1 {
		b.ReferencedDataFile(paths[0])
	}
	p.objects = append(p.objects, upload{key, body})
	own := make(map[string]*roaring.Bitmap, len(rows))
	for path, r := range rows {
		own[path] = r.Clone() // rows belong to the Change or to other delete files
	}
	p.addDeletes = append(p.addDeletes, &deleteFile{
		entry: newEntry(b.Build(), p.snapshotID, p.sequence), partition: of.partition, shared: shared && len(paths) > 1, rows: own, count: count,
	})
	return nil
}

func position(v uint32) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(v)) }

var deleteSchema = func() *arrow.Schema {
	sc, err := table.SchemaToArrowSchema(iceberg.PositionalDeleteSchema, nil, true, false)
	if err != nil {
		panic(err)
	}
	return sc
}()

// encodeDeletes writes rows in batches of bounded size.
func encodeDeletes(paths []string, rows map[string]*roaring.Bitmap) ([]byte, error) {
	const batchRows = 16 << 10
	var out bytes.Buffer
	props, err := writerProperties(deleteSchema, defaultRowGroupRows, nil)
	if err != nil {
		return nil, err
	}
	w, err := pqarrow.NewFileWriter(deleteSchema, &out, props, pqarrow.NewArrowWriterProperties())
	if err != nil {
		return nil, err
	}
	names := array.NewStringBuilder(memory.DefaultAllocator)
	defer names.Release()
	positions := array.NewInt64Builder(memory.DefaultAllocator)
	defer positions.Release()
	flush := func() error {
		if positions.Len() == 0 {
			return nil
		}
		n, pos := names.NewArray(), positions.NewArray()
		defer n.Release()
		defer pos.Release()
		rec := array.NewRecordBatch(deleteSchema, []arrow.Array{n, pos}, int64(pos.Len()))
		defer rec.Release()
		return w.WriteBuffered(rec)
	}
	for _, path := range paths {
		for it := rows[path].Iterator(); it.HasNext(); {
			names.Append(path)
			positions.Append(int64(it.Next()))
			if positions.Len() == batchRows {
				if err := flush(); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

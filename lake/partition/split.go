package partition

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
)

// Part is the rows of a batch that belong to one partition.
type Part struct {
	Key    string // tells the partitions of one spec apart
	Values map[int]any
	Rows   []int32 // ascending
}

// Splitter sorts the rows of batches by partition. What it costs is by row and
// field one transform and by row one look-up; it allocates by batch and
// partition, never by row. One goroutine at a time may use it.
type Splitter struct {
	spec  iceberg.PartitionSpec
	cols  []int
	terms []iceberg.Transform
	types []iceberg.Type

	key  []byte
	seen map[string]int32
	of   []int32 // the part of each row; -1: none
}

// NewSplitter splits batches with the columns of a schema by spec.
func NewSplitter(spec iceberg.PartitionSpec, sc *iceberg.Schema) (*Splitter, error) {
	s := &Splitter{spec: spec, seen: map[string]int32{}}
	for _, f := range spec.Fields() {
		at := -1
		for i, c := range sc.Fields() {
			if c.ID == f.SourceID() {
				at = i
			}
		}
		if at < 0 {
			return nil, fmt.Errorf("partition field %s: its column is not in the schema", f.Name)
		}
		s.cols = append(s.cols, at)
		s.terms = append(s.terms, f.Transform)
		s.types = append(s.types, sc.Fields()[at].Type)
	}
	return s, nil
}

// Columns are those that partitions are made of, by their place in the schema.
func (s *Splitter) Columns() []int { return s.cols }

// Place is where a part's rows belong.
func (s *Splitter) Place(p *Part) *Place { return &Place{Spec: s.spec, Values: p.Values} }

// Split returns the parts of a batch's rows, in the order in which they appear,
// without those of which skip says so.
func (s *Splitter) Split(cols []arrow.Array, rows int, skip func(row uint32) bool) ([]Part, error) {
	cells := make([]cell, len(s.cols))
	for i, c := range s.cols {
		var err error
		if cells[i], err = newCell(s.terms[i], s.types[i], cols[c]); err != nil {
			return nil, fmt.Errorf("partition field %s: %w", s.spec.Field(i).Name, err)
		}
	}
	clear(s.seen)
	if cap(s.of) < rows {
		s.of = make([]int32, rows)
	}
	of := s.of[:rows]
	var parts []Part
	var counts []int32
	last, live := int32(-1), 0
	for row := range rows {
		if skip(uint32(row)) {
			of[row] = -1
			continue
		}
		live++
		s.key = s.key[:0]
		for i := range cells {
			s.key = cells[i].key(s.key, row)
		}
		if last < 0 || string(s.key) != parts[last].Key {
			p, ok := s.seen[string(s.key)]
			if !ok {
				p = int32(len(parts))
				values := make(map[int]any, len(cells))
				for i := range cells {
					values[s.spec.Field(i).FieldID] = cells[i].value(row)
				}
				key := string(s.key)
				s.seen[key] = p
				parts = append(parts, Part{Key: key, Values: values})
				counts = append(counts, 0)
			}
			last = p
		}
		of[row] = last
		counts[last]++
	}
	all := make([]int32, live)
	for i := range parts {
		parts[i].Rows, all = all[:0:counts[i]], all[counts[i]:]
	}
	for row, p := range of {
		if p >= 0 {
			parts[p].Rows = append(parts[p].Rows, int32(row))
		}
	}
	return parts, nil
}

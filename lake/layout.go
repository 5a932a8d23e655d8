package lake

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/apache/iceberg-go"

	"firn/lake/column"
	"firn/lake/partition"
	"firn/wal"
)

// layoutProperty is the table property that carries the Layout, so that a
// restart needs neither the source nor our local state to know which field id
// is which attribute.
const layoutProperty = "firn.layout"

// Column is one mirrored column: an attribute of the Postgres table and the
// Iceberg field that holds it.
type Column struct {
	AttNum  int16        `json:"attnum"`
	FieldID int          `json:"field"`
	Element int          `json:"element,omitempty"` // element id of a list
	Name    string       `json:"name"`
	Type    wal.TypeInfo `json:"type"`

	codec column.Codec
}

// Layout maps a Postgres table to its Iceberg schema. Field ids follow
// attribute numbers, which survive a rename and are never reused, so a column
// dropped and added again under its old name is a new field. A Layout is
// immutable.
type Layout struct {
	OID         uint32   `json:"oid"`
	Identity    byte     `json:"identity"`               // replica identity: d, i, f; n for append
	Key         []int16  `json:"key,omitempty"`          // attribute numbers of the columns that identify a row
	FileNodes   []uint32 `json:"filenodes"`              // relfilenode of the table or its leaves when last explained
	TruncatedBy []uint32 `json:"truncated_by,omitempty"` // the last transactions that the stream showed to truncate it
	Membership  uint32   `json:"membership,omitempty"`   // its stay in the publication that has all since it was loaded
	LastField   int      `json:"last_field"`             // highest field id ever given
	Columns     []Column `json:"columns"`

	PartitionBy string            `json:"partition_by,omitempty"` // the user's words that Partition was made of
	Partition   []partition.Field `json:"partition,omitempty"`

	schema *iceberg.Schema
	key    []int // indexes into Columns
}

// NewLayout lays out a table seen for the first time, or anew after a change
// that only a fresh load can follow; last is the highest field id its Iceberg
// table has used. Columns that also stand in old (same attribute, same type)
// keep their field.
func NewLayout(t *wal.Table, old *Layout, last int) (*Layout, error) {
	l := &Layout{OID: t.OID, Identity: t.ReplicaIdentity, LastField: last, FileNodes: fileNodes(t)}
	if old != nil {
		l.LastField = max(l.LastField, old.LastField)
		if old.OID != t.OID {
			old = nil
		}
	}
	for _, c := range t.Columns {
		if !streamed(c) {
			continue
		}
		col := Column{AttNum: c.AttNum, Name: c.Name, Type: c.Type}
		if err := l.place(&col, old); err != nil {
			return nil, err
		}
		l.Columns = append(l.Columns, col)
	}
	for _, k := range t.Key {
		l.Key = append(l.Key, t.Columns[k].AttNum)
	}
	return l, l.init()
}

// streamed says whether pgoutput sends the column: generated ones it leaves out.
func streamed(c wal.TableColumn) bool { return c.Generated == 0 }

// fileNodes lists the relfilenodes that hold t's rows, sorted.
func fileNodes(t *wal.Table) []uint32 {
	if !t.Partitioned {
		return []uint32{t.FileNode}
	}
	var out []uint32
	for _, leaf := range t.Leaves {
		out = append(out, leaf.FileNode)
	}
	slices.Sort(out)
	return out
}

// place gives col the field of old's same attribute where the types agree or
// Iceberg can promote one to the other, else the next free id.
func (l *Layout) place(col *Column, old *Layout) error {
	codec, err := column.For(col.Type, column.Options{})
	if err != nil {
		return fmt.Errorf("lay out column %s: %w", col.Name, err)
	}
	if old != nil {
		if was := old.attr(col.AttNum); was != nil && promotable(was.codec.Iceberg(), codec.Iceberg()) {
			col.FieldID, col.Element = was.FieldID, was.Element
			return nil
		}
	}
	l.LastField++
	col.FieldID = l.LastField
	if _, list := codec.Iceberg().(*iceberg.ListType); list {
		l.LastField++
		col.Element = l.LastField
	}
	return nil
}

// promotable says whether Iceberg reads files of type a under type b, and b
// holds all of a's values unchanged.
func promotable(a, b iceberg.Type) bool {
	if la, ok := a.(*iceberg.ListType); ok {
		lb, ok := b.(*iceberg.ListType)
		return ok && la.Element.Equals(lb.Element)
	}
	if a.Equals(b) {
		return true
	}
	switch a := a.(type) {
	case iceberg.Int32Type:
		_, ok := b.(iceberg.Int64Type)
		return ok
	case iceberg.Float32Type:
		_, ok := b.(iceberg.Float64Type)
		return ok
	case iceberg.DecimalType:
		d, ok := b.(iceberg.DecimalType)
		return ok && d.Scale() == a.Scale() && d.Precision() >= a.Precision()
	}
	return false
}

// init derives codecs, schema and key positions.
func (l *Layout) init() error {
	fields := make([]iceberg.NestedField, len(l.Columns))
	for i := range l.Columns {
		c := &l.Columns[i]
		codec, err := column.For(c.Type, column.Options{})
		if err != nil {
			return fmt.Errorf("lay out column %s: %w", c.Name, err)
		}
		c.codec = codec
		typ := codec.Iceberg()
		if list, ok := typ.(*iceberg.ListType); ok {
			typ = &iceberg.ListType{ElementID: c.Element, Element: list.Element, ElementRequired: false}
		}
		fields[i] = iceberg.NestedField{ID: c.FieldID, Name: c.Name, Type: typ}
	}
	l.schema = iceberg.NewSchema(0, fields...)
	l.key = l.key[:0]
	for _, att := range l.Key {
		i := l.index(att)
		if i < 0 {
			return fmt.Errorf("lay out key: attribute %d is not mirrored", att)
		}
		l.key = append(l.key, i)
	}
	return nil
}

func (l *Layout) index(att int16) int {
	return slices.IndexFunc(l.Columns, func(c Column) bool { return c.AttNum == att })
}

func (l *Layout) attr(att int16) *Column {
	if i := l.index(att); i >= 0 {
		return &l.Columns[i]
	}
	return nil
}

func (l *Layout) named(name string) *Column {
	for i := range l.Columns {
		if l.Columns[i].Name == name {
			return &l.Columns[i]
		}
	}
	return nil
}

// Schema is the Iceberg schema, field ids assigned.
func (l *Layout) Schema() *iceberg.Schema { return l.schema }

// indexed says how rows are found again: by key, by a hash of the whole row
// (REPLICA IDENTITY FULL without a key), or not at all.
func (l *Layout) indexed() (keyed, whole bool) {
	return len(l.key) > 0, len(l.key) == 0 && l.Identity == 'f'
}

// keyColumns are the columns whose values the index is built from.
func (l *Layout) keyColumns() []int {
	if keyed, whole := l.indexed(); keyed {
		return l.key
	} else if whole {
		all := make([]int, len(l.Columns))
		for i := range all {
			all[i] = i
		}
		return all
	}
	return nil
}

// codecs returns the codecs of the given columns.
func (l *Layout) codecs(cols []int) []column.Codec {
	out := make([]column.Codec, len(cols))
	for i, c := range cols {
		out[i] = l.Columns[c].codec
	}
	return out
}

// fields returns the field ids of the given columns.
func (l *Layout) fields(cols []int) []int {
	out := make([]int, len(cols))
	for i, c := range cols {
		out[i] = l.Columns[c].FieldID
	}
	return out
}

// encode is the layoutProperty's value.
func (l *Layout) encode() string {
	b, err := json.Marshal(l)
	if err != nil {
		panic(err) // numbers, strings and slices of them always marshal
	}
	return string(b)
}

// decodeLayout reads the layoutProperty's value.
func decodeLayout(s string) (*Layout, error) {
	l := &Layout{}
	if err := json.Unmarshal([]byte(s), l); err != nil {
		return nil, fmt.Errorf("decode table property %s: %w", layoutProperty, err)
	}
	return l, l.init()
}

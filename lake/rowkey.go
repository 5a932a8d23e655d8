package lake

import (
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"

	"firn/lake/column"
	"firn/lake/index"
	"firn/wal"
)

// rowKey makes index keys: of the key columns, or for REPLICA IDENTITY FULL
// without a key a hash of the whole row. It has scratch space: one goroutine.
type rowKey struct {
	cols []int // indexes into Layout.Columns, in key order
	key  *column.Key
	hash *column.RowHash
}

// newRowKey returns nil for a table whose rows can't be found again.
func newRowKey(l *Layout) *rowKey {
	keyed, whole := l.indexed()
	k := &rowKey{cols: l.keyColumns()}
	switch {
	case keyed:
		k.key = column.NewKey(l.codecs(k.cols))
	case whole:
		fields := make([]column.Field, len(k.cols))
		for i, c := range k.cols {
			fields[i] = column.Field{ID: l.Columns[c].FieldID, Codec: l.Columns[c].codec}
		}
		k.hash = column.NewRowHash(fields)
	default:
		return nil
	}
	return k
}

func (k *rowKey) begin() {
	if k.key != nil {
		k.key.Begin()
	} else {
		k.hash.Begin()
	}
}

// value adds the i-th key column from the stream.
func (k *rowKey) value(i int, v wal.Value) error {
	if k.key != nil {
		return k.key.Value(v)
	}
	return k.hash.Value(i, v)
}

// binary adds the i-th key column from a COPY; nil is NULL.
func (k *rowKey) binary(i int, data []byte) error {
	switch {
	case k.key == nil && data == nil:
		return nil
	case k.key == nil:
		return k.hash.Binary(i, data)
	case data == nil:
		return fmt.Errorf("key column %d is NULL", i+1)
	}
	return k.key.Binary(data)
}

func (k *rowKey) sum() index.Key {
	var hi, lo uint64
	if k.key != nil {
		hi, lo = k.key.Sum()
	} else {
		hi, lo = k.hash.Sum()
	}
	return index.Key{Hi: hi, Lo: lo}
}

// row is the key of row i of a record of the key columns, in key order.
func (k *rowKey) row(cols []arrow.Array, i int) (index.Key, error) {
	var hi, lo uint64
	var err error
	if k.key != nil {
		hi, lo, err = k.key.Row(cols, i)
	} else {
		hi, lo, err = k.hash.Row(cols, i)
	}
	return index.Key{Hi: hi, Lo: lo}, err
}

// options are the index's.
func (k *rowKey) options() index.Options {
	if k.key != nil {
		return index.Options{Wide: k.key.Wide()}
	}
	return index.Options{Wide: true, Multi: true}
}

// layout names what the keys are made of: an index is only good for one.
func (k *rowKey) layout(l *Layout) string {
	if k.key == nil {
		return "row"
	}
	s := k.key.Layout()
	for _, c := range k.cols {
		s += fmt.Sprintf(" %d", l.Columns[c].FieldID)
	}
	return s
}

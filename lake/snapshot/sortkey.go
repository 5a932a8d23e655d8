package snapshot

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// orderable says whether columns of a type can be sorted by.
func orderable(t iceberg.Type) bool {
	switch t.(type) {
	case iceberg.BooleanType, iceberg.Int32Type, iceberg.Int64Type, iceberg.Float32Type, iceberg.Float64Type, iceberg.DecimalType,
		iceberg.DateType, iceberg.TimeType, iceberg.TimestampType, iceberg.TimestampTzType, iceberg.TimestampNsType, iceberg.TimestampTzNsType,
		iceberg.StringType, iceberg.BinaryType, iceberg.FixedType, iceberg.UUIDType:
		return true
	}
	return false
}

// sortKeys are the keys of rows, as bytes that compare as the rows do: of each
// column whether it is NULL, then its value, most significant byte first and its
// sign turned round; of a descending column all bits of that turned. The first
// eight bytes are a number, which tells most rows apart.
type sortKeys struct {
	first []uint64
	ends  []uint32 // of each row's other bytes
	rest  []byte
	key   []byte // scratch
}

func (k *sortKeys) reset() { k.first, k.ends, k.rest = k.first[:0], k.ends[:0], k.rest[:0] }

// bytes in memory.
func (k *sortKeys) bytes() int64 { return int64(12*len(k.first) + len(k.rest)) }

func (k *sortKeys) tail(i int) []byte {
	if i == 0 {
		return k.rest[:k.ends[0]]
	}
	return k.rest[k.ends[i-1]:k.ends[i]]
}

// compare a's row i to b's row j.
func compareKeys(a *sortKeys, i int, b *sortKeys, j int) int {
	if c := cmp.Compare(a.first[i], b.first[j]); c != 0 {
		return c
	}
	return bytes.Compare(a.tail(i), b.tail(j))
}

// add appends the keys of a batch's rows; columns are those of fields.
func (k *sortKeys) add(rec arrow.RecordBatch, columns []int, fields []table.SortField) error {
	parts := make([]func([]byte, int) []byte, len(columns))
	for n, c := range columns {
		var err error
		if parts[n], err = keyPart(rec.Column(c), fields[n]); err != nil {
			return fmt.Errorf("sort by column %s: %w", rec.ColumnName(c), err)
		}
	}
	for i := range int(rec.NumRows()) {
		b := k.key[:0]
		for _, part := range parts {
			b = part(b, i)
		}
		for len(b) < 8 {
			b = append(b, 0)
		}
		k.first = append(k.first, binary.BigEndian.Uint64(b))
		k.rest = append(k.rest, b[8:]...)
		k.ends = append(k.ends, uint32(len(k.rest)))
		k.key = b
	}
	return nil
}

// keyPart appends what one column adds to the key of row i.
func keyPart(a arrow.Array, f table.SortField) (func(b []byte, i int) []byte, error) {
	value, err := keyValue(a)
	null, present := byte(1), byte(0)
	if f.NullOrder == table.NullsFirst {
		null, present = 0, 1
	}
	return func(b []byte, i int) []byte {
		if a.IsNull(i) {
			return append(b, null)
		}
		b = append(b, present)
		at := len(b)
		b = value(b, i)
		if f.Direction == table.SortDESC {
			for j := at; j < len(b); j++ {
				b[j] = ^b[j]
			}
		}
		return b
	}, err
}

// keyValue appends a value, which is not NULL, ascending. No value's bytes begin
// with all of another's.
func keyValue(a arrow.Array) (func(b []byte, i int) []byte, error) {
	u64, u32 := binary.BigEndian.AppendUint64, binary.BigEndian.AppendUint32
	whole := func(value func(i int) int64) func([]byte, int) []byte {
		return func(b []byte, i int) []byte { return u64(b, uint64(value(i))^1<<63) }
	}
	switch a := a.(type) {
	case array.ExtensionArray:
		return keyValue(a.Storage())
	case *array.Boolean:
		return func(b []byte, i int) []byte {
			if a.Value(i) {
				return append(b, 1)
			}
			return append(b, 0)
		}, nil
	case *array.Int32:
		return func(b []byte, i int) []byte { return u32(b, uint32(a.Value(i))^1<<31) }, nil
	case *array.Date32:
		return func(b []byte, i int) []byte { return u32(b, uint32(a.Value(i))^1<<31) }, nil
	case *array.Int64:
		return whole(a.Value), nil
	case *array.Time64:
		return whole(func(i int) int64 { return int64(a.Value(i)) }), nil
	case *array.Timestamp:
		return whole(func(i int) int64 { return int64(a.Value(i)) }), nil
	// -NaN, -Inf … -0, 0 … Inf, NaN, which is Iceberg's order.
	case *array.Float32:
		return func(b []byte, i int) []byte {
			bits := int32(math.Float32bits(a.Value(i)))
			if bits < 0 {
				bits ^= math.MaxInt32
			}
			return u32(b, uint32(bits)^1<<31)
		}, nil
	case *array.Float64:
		return whole(func(i int) int64 {
			bits := int64(math.Float64bits(a.Value(i)))
			if bits < 0 {
				bits ^= math.MaxInt64
			}
			return bits
		}), nil
	case *array.Decimal128:
		return func(b []byte, i int) []byte {
			v := a.Value(i)
			return u64(u64(b, uint64(v.HighBits())^1<<63), v.LowBits())
		}, nil
	case *array.FixedSizeBinary:
		return func(b []byte, i int) []byte { return append(b, a.Value(i)...) }, nil
	case *array.String:
		return func(b []byte, i int) []byte { return appendText(b, a.Value(i)) }, nil
	case *array.Binary:
		return func(b []byte, i int) []byte { return appendText(b, a.Value(i)) }, nil
	}
	return nil, fmt.Errorf("values of %s have no order", a.DataType())
}

// appendText ends a text by two zero bytes, and tells a zero byte within it from
// them.
func appendText[T string | []byte](b []byte, text T) []byte {
	at := len(b)
	b = append(b, text...)
	if bytes.IndexByte(b[at:], 0) >= 0 {
		b = append(b[:at], bytes.ReplaceAll(b[at:], []byte{0}, []byte{0, 1})...)
	}
	return append(b, 0, 0)
}

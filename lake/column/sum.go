package column

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/zeebo/xxh3"
)

// Sum is the checksum of a multiset of rows: the sum of their hashes, in
// whatever order they come. XOR would lose rows that are there twice.
type Sum struct {
	Hi, Lo uint64
	Rows   int64
}

// Add counts a row in.
func (s *Sum) Add(h xxh3.Uint128) { s.Join(Sum{h.Hi, h.Lo, 1}) }

// Join counts the rows of o in.
func (s *Sum) Join(o Sum) {
	var carry uint64
	s.Lo, carry = bits.Add64(s.Lo, o.Lo, 0)
	s.Hi, _ = bits.Add64(s.Hi, o.Hi, carry)
	s.Rows += o.Rows
}

// Take is the inverse of Add.
func (s *Sum) Take(h xxh3.Uint128) {
	var borrow uint64
	s.Lo, borrow = bits.Sub64(s.Lo, h.Lo, 0)
	s.Hi, _ = bits.Sub64(s.Hi, h.Hi, borrow)
	s.Rows--
}

// Checksum is the sum of the hashes in hexadecimal.
func (s Sum) Checksum() string { return fmt.Sprintf("%016x%016x", s.Hi, s.Lo) }

// RowSums makes hashes of rows for a Sum, a batch at a time: of each row the
// hash of its RowHash. RowHashes themselves would not do, for being sums of
// fields they add up the same when rows exchange values. A RowSums has scratch
// space: one goroutine at a time may use it.
type RowSums struct {
	row  *RowHash
	hash []xxh3.Uint128
}

// NewRowSums is of rows with the given fields, as an Iceberg schema has them.
func NewRowSums(fields []iceberg.NestedField) (*RowSums, error) {
	of := make([]Field, len(fields))
	for i, f := range fields {
		k, err := kindOf(f.Type)
		if err != nil {
			return nil, fmt.Errorf("hash column %s: %w", f.Name, err)
		}
		of[i] = Field{ID: f.ID, Codec: Codec{k}}
	}
	return &RowSums{row: NewRowHash(of)}, nil
}

// Hashes are those of the rows of a batch, whose columns are those of the
// fields. They are valid until the next call.
func (s *RowSums) Hashes(rec arrow.RecordBatch) ([]xxh3.Uint128, error) {
	n := int(rec.NumRows())
	if cap(s.hash) < n {
		s.hash = make([]xxh3.Uint128, n)
	}
	s.hash = s.hash[:n]
	clear(s.hash)
	for f := range s.row.fields {
		if err := s.column(f, rec.Column(f)); err != nil {
			return nil, err
		}
	}
	for i, h := range s.hash {
		s.hash[i] = mixed(h)
	}
	return s.hash, nil
}

func mixed(h xxh3.Uint128) xxh3.Uint128 {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], h.Hi)
	binary.BigEndian.PutUint64(b[8:], h.Lo)
	return xxh3.Hash128(b[:])
}

// column adds a field to the hashes of all rows.
func (s *RowSums) column(f int, arr arrow.Array) error {
	k := s.row.start(f)
	buf := s.row.buf
	head := len(buf)
	strings, _ := arr.(*array.String)
	nulls := arr.NullN() > 0
	for i := range s.hash {
		if nulls && arr.IsNull(i) {
			continue
		}
		if strings != nil {
			buf = append(buf[:head], strings.Value(i)...)
		} else {
			var err error
			if buf, err = k.canonArrow(buf[:head], arr, i, true); err != nil {
				return err
			}
		}
		v, h := xxh3.Hash128(buf), &s.hash[i]
		var carry uint64
		h.Lo, carry = bits.Add64(h.Lo, v.Lo, 0)
		h.Hi, _ = bits.Add64(h.Hi, v.Hi, carry)
	}
	if cap(buf) <= scratchMax {
		s.row.buf = buf
	}
	return nil
}

// kindOf is a kind whose lake values are of an Iceberg type.
func kindOf(t iceberg.Type) (kind, error) {
	switch t := t.(type) {
	case iceberg.BooleanType:
		return boolKind{}, nil
	case iceberg.Int32Type:
		return int32Kind{typ: "int4", wire: 4}, nil
	case iceberg.Int64Type:
		return int64Kind{}, nil
	case iceberg.Float32Type:
		return float32Kind{}, nil
	case iceberg.Float64Type:
		return float64Kind{}, nil
	case iceberg.DecimalType:
		return newDecimal(t.String(), t.Precision(), t.Scale()), nil
	case iceberg.StringType:
		return asText("text"), nil
	case iceberg.BinaryType:
		return &bytesKind{typ: "bytea", ice: t, arr: arrow.BinaryTypes.Binary, bin: true, fromText: appendHex}, nil
	case iceberg.UUIDType:
		return uuidKind{}, nil
	case iceberg.DateType:
		return dateKind{}, nil
	case iceberg.TimeType:
		return timeKind{}, nil
	case iceberg.TimestampType:
		return timestampKind{}, nil
	case iceberg.TimestampTzType:
		return timestampKind{tz: true}, nil
	case *iceberg.ListType:
		elem, err := kindOf(t.Element)
		if err != nil {
			return nil, err
		}
		return newList(elem), nil
	}
	return nil, fmt.Errorf("type %s has no canonical bytes", t)
}

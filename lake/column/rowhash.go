package column

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/zeebo/xxh3"

	"firn/wal"
)

// Field is a column of the lake's table.
type Field struct {
	ID    int // Iceberg field id
	Codec Codec
}

// RowHash makes 128-bit hashes of whole rows: the sum of its fields' xxh3, each
// over field id and exact canonical bytes. NULLs are left out, so a hash
// survives columns that are added, renamed, reordered, or promoted to a wider
// type; -0 and 0 differ. A RowHash has scratch space: one goroutine at a time
// may use it.
type RowHash struct {
	fields []Field
	buf    []byte
	hi, lo uint64
}

// NewRowHash takes the fields that rows are made of, in any order.
func NewRowHash(fields []Field) *RowHash { return &RowHash{fields: fields} }

// Begin starts a row; its values follow in any order, by Text, Binary, Value or
// Arrow with the field's place in NewRowHash's list, then Sum. A NULL is
// nothing to add.
func (h *RowHash) Begin() { h.hi, h.lo = 0, 0 }

func (h *RowHash) start(f int) kind {
	h.buf = binary.BigEndian.AppendUint32(h.buf[:0], uint32(h.fields[f].ID))
	return h.fields[f].Codec.k
}

func (h *RowHash) add(buf []byte, err error) error {
	if err != nil {
		return err
	}
	if cap(buf) <= scratchMax {
		h.buf = buf
	}
	v := xxh3.Hash128(buf)
	var carry uint64
	h.lo, carry = bits.Add64(h.lo, v.Lo, 0)
	h.hi, _ = bits.Add64(h.hi, v.Hi, carry)
	return nil
}

// Text adds field f's value in text form.
func (h *RowHash) Text(f int, data []byte) error {
	k := h.start(f)
	return h.add(k.canon(h.buf, data, textForm, true))
}

// Binary adds field f's value in binary form (text form where Codec.Binary is
// false).
func (h *RowHash) Binary(f int, data []byte) error {
	k := h.start(f)
	return h.add(k.canon(h.buf, data, binaryForm, true))
}

// Value adds field f's value from a tuple of the stream, NULL or not. An
// unchanged TOAST value is an error.
func (h *RowHash) Value(f int, v wal.Value) error {
	switch v.Kind {
	case 'n':
		return nil
	case 't':
		return h.Text(f, v.Data)
	case 'b':
		return h.Binary(f, v.Data)
	}
	return fmt.Errorf("hash %s: value is of kind %q", h.fields[f].Codec.Type(), v.Kind)
}

// Arrow adds field f's value from arr's value i, NULL or not.
func (h *RowHash) Arrow(f int, arr arrow.Array, i int) error {
	if arr.IsNull(i) {
		return nil
	}
	k := h.start(f)
	return h.add(k.canonArrow(h.buf, arr, i, true))
}

// Sum is the hash of the values since Begin.
func (h *RowHash) Sum() (hi, lo uint64) { return h.hi, h.lo }

// Tuple is the hash of a tuple of the stream: field f's value is at cols[f].
func (h *RowHash) Tuple(t wal.Tuple, cols []int) (hi, lo uint64, err error) {
	h.Begin()
	for f, c := range cols {
		if err := h.Value(f, t[c]); err != nil {
			return 0, 0, err
		}
	}
	return h.hi, h.lo, nil
}

// Row is the hash of row i: cols[f] is field f's column.
func (h *RowHash) Row(cols []arrow.Array, i int) (hi, lo uint64, err error) {
	h.Begin()
	for f, c := range cols {
		if err := h.Arrow(f, c, i); err != nil {
			return 0, 0, err
		}
	}
	return h.hi, h.lo, nil
}

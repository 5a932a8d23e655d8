package column

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/zeebo/xxh3"

	"firn/wal"
)

// exactKeyBytes is the most that an index key holds as it is.
const exactKeyBytes = 8

// Key makes a table's row index keys from its key columns. Keys whose parts
// always fit eight bytes together are those bytes (Hi is 0); all others are the
// 128-bit xxh3 of the parts, each with its length. A Key has scratch space: one
// goroutine at a time may use it.
type Key struct {
	codecs []Codec
	exact  bool
	buf    []byte
	parts  int
}

// NewKey takes the codecs of the key columns in key order.
func NewKey(codecs []Codec) *Key {
	k := &Key{codecs: codecs, exact: len(codecs) > 0}
	sum := 0
	for _, c := range codecs {
		n := c.FixedKey()
		sum += n
		k.exact = k.exact && n > 0
	}
	k.exact = k.exact && sum <= exactKeyBytes
	return k
}

// Wide says whether keys are 128-bit hashes.
func (k *Key) Wide() bool { return !k.exact }

// Layout describes what the keys are made of. An index holds keys of one
// layout: where it differs, it must be rebuilt.
func (k *Key) Layout() string {
	var s strings.Builder
	s.WriteString("exact")
	if !k.exact {
		s.Reset()
		s.WriteString("xxh3")
	}
	for _, c := range k.codecs {
		fmt.Fprintf(&s, " %s:%d", c.Iceberg(), c.FixedKey())
	}
	return s.String()
}

// Begin starts a key; its parts follow in key order, by Text, Binary, Value or
// Arrow, then Sum.
func (k *Key) Begin() { k.buf, k.parts = k.buf[:0], 0 }

func (k *Key) start() (codec Codec, at int) {
	codec = k.codecs[k.parts]
	if !k.exact {
		k.buf = append(k.buf, 0, 0, 0, 0)
	}
	return codec, len(k.buf)
}

func (k *Key) end(buf []byte, at int, err error) error {
	if err != nil {
		return err
	}
	if !k.exact {
		binary.BigEndian.PutUint32(buf[at-4:], uint32(len(buf)-at))
	}
	k.buf = buf
	k.parts++
	return nil
}

// Text adds a part in text form.
func (k *Key) Text(data []byte) error {
	c, at := k.start()
	buf, err := c.k.canon(k.buf, data, textForm, false)
	return k.end(buf, at, err)
}

// Binary adds a part in binary form (text form where Codec.Binary is false).
func (k *Key) Binary(data []byte) error {
	c, at := k.start()
	buf, err := c.k.canon(k.buf, data, binaryForm, false)
	return k.end(buf, at, err)
}

// Value adds a part from a tuple of the stream. A NULL or an unchanged TOAST
// value is an error.
func (k *Key) Value(v wal.Value) error {
	switch v.Kind {
	case 't':
		return k.Text(v.Data)
	case 'b':
		return k.Binary(v.Data)
	}
	return fmt.Errorf("make key of %s: value is of kind %q", k.codecs[k.parts].Type(), v.Kind)
}

// Arrow adds a part from arr's value i, which must not be NULL.
func (k *Key) Arrow(arr arrow.Array, i int) error {
	c, at := k.start()
	buf, err := canonArrow(c.k, k.buf, arr, i, false)
	return k.end(buf, at, err)
}

// Sum is the key of the parts since Begin. It panics if they are not all there.
func (k *Key) Sum() (hi, lo uint64) {
	if k.parts != len(k.codecs) {
		panic(fmt.Sprintf("column: key has %d of its %d parts", k.parts, len(k.codecs)))
	}
	if !k.exact {
		h := xxh3.Hash128(k.buf)
		return h.Hi, h.Lo
	}
	for _, b := range k.buf {
		lo = lo<<8 | uint64(b)
	}
	return 0, lo
}

// Tuple is the key of a tuple of the stream, whose key columns are at cols.
func (k *Key) Tuple(t wal.Tuple, cols []int) (hi, lo uint64, err error) {
	k.Begin()
	for _, c := range cols {
		if err := k.Value(t[c]); err != nil {
			return 0, 0, err
		}
	}
	hi, lo = k.Sum()
	return hi, lo, nil
}

// Row is the key of row i of the key columns.
func (k *Key) Row(cols []arrow.Array, i int) (hi, lo uint64, err error) {
	k.Begin()
	for _, c := range cols {
		if err := k.Arrow(c, i); err != nil {
			return 0, 0, err
		}
	}
	hi, lo = k.Sum()
	return hi, lo, nil
}

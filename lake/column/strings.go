package column

import (
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Strings collects a column of strings or binaries, as Arrow's builder for them
// does, in half the time: that one keeps a validity bitmap whether there are
// NULLs or not, and goes through three levels of buffers for each value. The zero
// Strings is invalid. Not for two goroutines.
type Strings struct {
	typ    arrow.DataType
	starts []int32 // of the values in data
	data   []byte
	valid  []byte // bit per value; nil while there is no NULL
	nulls  int
}

// Strings returns an empty column for the codec's values; nil if these are
// neither strings nor binaries.
func (c Codec) Strings() *Strings {
	if k, ok := c.k.(*bytesKind); ok {
		return &Strings{typ: k.arr}
	}
	return nil
}

// BindStrings is Bind to a column that Strings has made.
func (c Codec) BindStrings(s *Strings) Appender {
	k, ok := c.k.(*bytesKind)
	if !ok || s.typ.ID() != k.arr.ID() {
		panic("bind strings: the codec is not of strings, or of others")
	}
	return &bytesAppender{k: k, b: s}
}

// Len is the number of values, NULLs included.
func (s *Strings) Len() int { return len(s.starts) }

// DataLen is the bytes of all values.
func (s *Strings) DataLen() int { return len(s.data) }

// Append appends a copy of v. All of them together must stay below 2 GB.
func (s *Strings) Append(v []byte) {
	s.starts = append(s.starts, int32(len(s.data)))
	s.data = append(s.data, v...)
	if s.valid != nil {
		s.mark(true)
	}
}

// AppendNull appends a NULL.
func (s *Strings) AppendNull() {
	if s.valid == nil {
		s.valid = make([]byte, len(s.starts)/8, cap(s.starts)/8+1)
		for i := range s.valid {
			s.valid[i] = 0xff
		}
		s.valid = append(s.valid, 1<<(len(s.starts)%8)-1)
	}
	s.starts = append(s.starts, int32(len(s.data)))
	s.mark(false)
	s.nulls++
}

// mark notes whether the last value is none.
func (s *Strings) mark(valid bool) {
	i := len(s.starts) - 1
	if i/8 == len(s.valid) {
		s.valid = append(s.valid, 0)
	}
	if valid {
		s.valid[i/8] |= 1 << (i % 8)
	}
}

// IsNull says whether value i is NULL.
func (s *Strings) IsNull(i int) bool { return s.valid != nil && s.valid[i/8]&(1<<(i%8)) == 0 }

// Value is value i, in the column's own memory.
func (s *Strings) Value(i int) []byte {
	if i+1 < len(s.starts) {
		return s.data[s.starts[i]:s.starts[i+1]]
	}
	return s.data[s.starts[i]:]
}

// Reserve makes room for so many more values and bytes.
func (s *Strings) Reserve(values, bytes int) {
	s.starts = slices.Grow(s.starts, values+1) // NewArray appends the end of the last
	s.data = slices.Grow(s.data, bytes)
}

// NewArray makes an array of the values, which takes their memory over, and
// leaves the column empty.
func (s *Strings) NewArray() arrow.Array {
	n := len(s.starts)
	buffers := []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(append(s.starts, int32(len(s.data))))), memory.NewBufferBytes(s.data)}
	if s.nulls > 0 {
		buffers[0] = memory.NewBufferBytes(s.valid)
	}
	data := array.NewData(s.typ, n, buffers, nil, s.nulls, 0)
	defer data.Release()
	*s = Strings{typ: s.typ}
	return array.MakeFromData(data)
}

package snapshot

import (
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/zeebo/xxh3"
)

const (
	// dictionarySample is how many of the first rows say whether a column's
	// values repeat.
	dictionarySample = 1024
	// dictionaryMax bounds the values of our own dictionaries.
	dictionaryMax = 16 << 10
)

// repeats says whether a column's values come again often enough for a
// dictionary to pay: fewer than half of a sample are different. Columns that
// are not flat are taken to repeat, and watched by the encoder.
func repeats(a arrow.Array) bool {
	if e, ok := a.(array.ExtensionArray); ok {
		a = e.Storage()
	}
	n := min(a.Len(), dictionarySample)
	if n == 0 {
		return true
	}
	var value func(i int) string
	switch a := a.(type) {
	case *array.String:
		value = a.Value
	case *array.Binary:
		value = a.ValueString
	default:
		width := 0
		if t, ok := a.DataType().(arrow.FixedWidthDataType); ok {
			width = t.BitWidth() / 8
		}
		if width == 0 {
			return true
		}
		data, off := a.Data().Buffers()[1].Bytes(), a.Data().Offset()
		value = func(i int) string { return string(data[(off+i)*width : (off+i+1)*width]) }
	}
	seen := make(map[string]struct{}, n)
	present := 0
	for k := range n {
		i := k * a.Len() / n
		if a.IsValid(i) {
			present++
			seen[value(i)] = struct{}{}
		}
	}
	return present == 0 || 2*len(seen) <= present
}

// dictionary turns the strings of a row group into indexes. The encoder would do
// so too, but allocates for each value; given indexes it only packs them.
//
// It is made of the group's first batch. A batch with a value that is not in it
// goes to the encoder as it came, which adds the new values to the same
// dictionary page.
type dictionary struct {
	begun  bool
	values *array.String // nil: the row group has no batch yet, or no dictionary of ours
	slots  []slot        // a hash table of values, at most half full
	found  []uint8       // scratch: the indexes of a batch
	wide   []int32       // the same, for dictionaries of more than 256 values
}

type slot struct {
	hash  uint64
	index int32 // of the value, + 1; 0: the slot is free
}

// reset begins a row group.
func (d *dictionary) reset() {
	if d.values != nil {
		d.values.Release()
		d.values = nil
	}
	d.begun = false
}

// encode returns a as indexes into the dictionary, or a itself, valid until the
// next call. The caller releases it.
func (d *dictionary) encode(a arrow.Array) arrow.Array {
	s, ok := a.(*array.String)
	if ok && !d.begun {
		d.begun = true
		d.learn(s)
	}
	if ok && d.values != nil {
		if out := d.indexes(s); out != nil {
			return out
		}
	}
	a.Retain()
	return a
}

// learn makes the dictionary of a's values, unless they are too many.
func (d *dictionary) learn(a *array.String) {
	values := array.NewStringBuilder(memory.DefaultAllocator)
	defer values.Release()
	d.slots = make([]slot, 64)
	for i := range a.Len() {
		if a.IsNull(i) {
			continue
		}
		v := a.Value(i)
		h := xxh3.HashString(v)
		s := find(d.slots, h, func(at int32) bool { return values.Value(int(at)) == v })
		if s.index != 0 {
			continue
		}
		if values.Len() == dictionaryMax {
			return
		}
		values.Append(v)
		*s = slot{hash: h, index: int32(values.Len())}
		if 2*values.Len() > len(d.slots) {
			d.widen()
		}
	}
	d.values = values.NewStringArray()
}

// find returns the slot of the value with hash h, or a free one.
func find(slots []slot, h uint64, same func(at int32) bool) *slot {
	mask := uint64(len(slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		if s := &slots[i]; s.index == 0 || s.hash == h && same(s.index-1) {
			return s
		}
	}
}

func (d *dictionary) widen() {
	slots := make([]slot, 2*len(d.slots))
	for _, s := range d.slots {
		if s.index != 0 {
			*find(slots, s.hash, func(int32) bool { return false }) = s
		}
	}
	d.slots = slots
}

// indexes returns nil if a has a value that is not in the dictionary.
func (d *dictionary) indexes(a *array.String) arrow.Array {
	off := a.Data().Offset() // where a's validity bitmap begins, too
	small := d.values.Len() <= 256
	if small {
		d.found = slices.Grow(d.found[:0], off+a.Len())[:off+a.Len()]
		clear(d.found[:off])
	} else {
		d.wide = slices.Grow(d.wide[:0], off+a.Len())[:off+a.Len()]
		clear(d.wide[:off])
	}
	for i := range a.Len() {
		var at int32
		if a.IsValid(i) {
			v := a.Value(i)
			s := find(d.slots, xxh3.HashString(v), func(at int32) bool { return d.values.Value(int(at)) == v })
			if s.index == 0 {
				return nil
			}
			at = s.index - 1
		}
		if small {
			d.found[off+i] = uint8(at)
		} else {
			d.wide[off+i] = at
		}
	}
	typ := &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: a.DataType()}
	bytes := arrow.Int32Traits.CastToBytes(d.wide)
	if small {
		// Also because the encoder looks for the indexes in use, for the page's
		// bounds, which is dear where they are wide.
		typ.IndexType, bytes = arrow.PrimitiveTypes.Uint8, d.found
	}
	data := array.NewData(typ.IndexType, a.Len(), []*memory.Buffer{a.Data().Buffers()[0], memory.NewBufferBytes(bytes)}, nil, a.NullN(), off)
	defer data.Release()
	ix := array.MakeFromData(data)
	defer ix.Release()
	return array.NewDictionaryArray(typ, ix, d.values)
}

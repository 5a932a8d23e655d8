package snapshot

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
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
	index  map[string]int32
	values arrow.Array // index → value; nil: the row group has no batch yet, or no dictionary of ours
	begun  bool
}

// reset begins a row group.
func (d *dictionary) reset() {
	if d.values != nil {
		d.values.Release()
	}
	*d = dictionary{}
}

// encode returns a as indexes into the dictionary, or a itself. The caller
// releases it.
func (d *dictionary) encode(a arrow.Array) arrow.Array {
	first := !d.begun
	d.begun = true
	var out arrow.Array
	if s, ok := a.(*array.String); ok && (first || d.values != nil) {
		out = d.strings(s, first)
	}
	if out == nil {
		a.Retain()
		return a
	}
	return out
}

// strings returns nil if a has too many values, or, after the first batch, one
// that is not in the dictionary.
func (d *dictionary) strings(a *array.String, first bool) arrow.Array {
	var values *array.StringBuilder
	if first {
		d.index = make(map[string]int32, 64)
		values = array.NewStringBuilder(memory.DefaultAllocator)
		defer values.Release()
	}
	off := a.Data().Offset()
	indexes := make([]int32, off+a.Len()) // the validity bitmap is a's, which starts at off
	for i := range a.Len() {
		if a.IsNull(i) {
			continue
		}
		v := a.Value(i)
		at, ok := d.index[v]
		if !ok {
			if !first || len(d.index) == dictionaryMax {
				return nil
			}
			at = int32(len(d.index))
			values.Append(v)
			d.index[v] = at // v lies in a, until the dictionary's own copy takes its place
		}
		indexes[off+i] = at
	}
	if first {
		d.values = values.NewArray()
		own := d.values.(*array.String)
		clear(d.index)
		for i := range own.Len() {
			d.index[own.Value(i)] = int32(i)
		}
	}
	data := array.NewData(arrow.PrimitiveTypes.Int32, a.Len(),
		[]*memory.Buffer{a.Data().Buffers()[0], memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(indexes))}, nil, a.NullN(), off)
	defer data.Release()
	ix := array.NewInt32Data(data)
	defer ix.Release()
	return array.NewDictionaryArray(&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: a.DataType()}, ix, d.values)
}

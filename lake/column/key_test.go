package column

import (
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/stretchr/testify/require"

	"firn/wal"
)

func TestKeyWidth(t *testing.T) {
	i2, i4, i8 := base(oidInt2, "int2"), base(oidInt4, "int4"), base(oidInt8, "int8")
	for _, c := range []struct {
		types []wal.TypeInfo
		wide  bool
	}{
		{[]wal.TypeInfo{i8}, false},
		{[]wal.TypeInfo{i4, i4}, false},
		{[]wal.TypeInfo{i2, i4}, false},
		{[]wal.TypeInfo{i4, i8}, true},
		{[]wal.TypeInfo{base(oidText, "text")}, true},
		{[]wal.TypeInfo{base(oidUUID, "uuid")}, true},
		{[]wal.TypeInfo{numericType(18, 2)}, false},
		{[]wal.TypeInfo{numericType(19, 2)}, true},
		{[]wal.TypeInfo{base(oidTimestamptz, "timestamptz")}, false},
		{[]wal.TypeInfo{base(oidDate, "date"), base(oidBool, "bool")}, false},
	} {
		codecs := make([]Codec, len(c.types))
		for i, info := range c.types {
			codecs[i] = mustFor(t, info)
		}
		require.Equal(t, c.wide, NewKey(codecs).Wide())
	}
	require.Equal(t, NewKey([]Codec{mustFor(t, i2)}).Layout(), NewKey([]Codec{mustFor(t, i4)}).Layout())
	require.NotEqual(t, NewKey([]Codec{mustFor(t, i4)}).Layout(), NewKey([]Codec{mustFor(t, i8)}).Layout())
	require.Equal(t, "xxh3 int:4 string:0", NewKey([]Codec{mustFor(t, i4), mustFor(t, base(oidText, "text"))}).Layout())
}

func textKey(t *testing.T, k *Key, parts ...string) [2]uint64 {
	t.Helper()
	k.Begin()
	for _, p := range parts {
		require.NoError(t, k.Text([]byte(p)))
	}
	hi, lo := k.Sum()
	return [2]uint64{hi, lo}
}

func TestExactKey(t *testing.T) {
	k := NewKey([]Codec{mustFor(t, base(oidInt4, "int4")), mustFor(t, base(oidInt4, "int4"))})
	require.Equal(t, [2]uint64{0, 1<<32 | 0xffffffff}, textKey(t, k, "1", "-1"))
	k = NewKey([]Codec{mustFor(t, base(oidInt8, "int8"))})
	require.Equal(t, [2]uint64{0, 1<<64 - 2}, textKey(t, k, "-2"))
}

// Parts don't run into one another.
func TestHashedKeyParts(t *testing.T) {
	text := mustFor(t, base(oidText, "text"))
	k := NewKey([]Codec{text, text})
	require.NotEqual(t, textKey(t, k, "ab", "c"), textKey(t, k, "a", "bc"))
	require.NotEqual(t, textKey(t, k, "", "x"), textKey(t, k, "x", ""))
	require.Equal(t, textKey(t, k, "", "x"), textKey(t, k, "", "x"))
}

// Postgres holds -0 and 0 equal, and NaN and NaN.
func TestFloatKeys(t *testing.T) {
	for _, info := range []wal.TypeInfo{base(oidFloat4, "float4"), base(oidFloat8, "float8")} {
		c := mustFor(t, info)
		k := NewKey([]Codec{c})
		require.Equal(t, textKey(t, k, "0"), textKey(t, k, "-0"))
		require.Equal(t, textKey(t, k, "NaN"), textKey(t, k, "NaN"))
		require.NotEqual(t, textKey(t, k, "1"), textKey(t, k, "-1"))
		// A row hash tells them apart.
		h := NewRowHash([]Field{{1, c}})
		sum := func(s string) [2]uint64 {
			h.Begin()
			require.NoError(t, h.Text(0, []byte(s)))
			hi, lo := h.Sum()
			return [2]uint64{hi, lo}
		}
		require.NotEqual(t, sum("0"), sum("-0"))
		require.Equal(t, sum("NaN"), sum("NaN"))
		// A NaN with another payload and sign is the same NaN.
		payload := []byte{0xff, 0xc0, 0, 1}
		if info.OID == oidFloat8 {
			payload = []byte{0xff, 0xf8, 0, 0, 0, 0, 0, 1}
		}
		h.Begin()
		require.NoError(t, h.Binary(0, payload))
		hi, lo := h.Sum()
		require.Equal(t, sum("NaN"), [2]uint64{hi, lo})
	}
}

func TestKeyOfTuple(t *testing.T) {
	k := NewKey([]Codec{mustFor(t, base(oidInt4, "int4")), mustFor(t, base(oidText, "text"))})
	tuple := wal.Tuple{{Kind: 't', Data: []byte("x")}, {Kind: 'n'}, {Kind: 'b', Data: []byte{0, 0, 0, 7}}}
	hi, lo, err := k.Tuple(tuple, []int{2, 0})
	require.NoError(t, err)
	require.Equal(t, textKey(t, k, "7", "x"), [2]uint64{hi, lo})
	_, _, err = k.Tuple(tuple, []int{2, 1})
	require.ErrorContains(t, err, "kind 'n'")
	_, _, err = k.Tuple(tuple, []int{0, 0})
	require.ErrorIs(t, err, ErrMalformed)
	k.Begin()
	require.Panics(t, func() { k.Sum() })
}

// PROTOCOL.md's rule 22: by field id, NULLs left out.
func TestRule22RowHash(t *testing.T) {
	i, s := mustFor(t, base(oidInt4, "int4")), mustFor(t, base(oidText, "text"))
	one := wal.Value{Kind: 't', Data: []byte("1")}
	null := wal.Value{Kind: 'n'}
	sum := func(h *RowHash, vals ...wal.Value) [2]uint64 {
		cols := make([]int, len(vals))
		for i := range cols {
			cols[i] = i
		}
		hi, lo, err := h.Tuple(vals, cols)
		require.NoError(t, err)
		return [2]uint64{hi, lo}
	}
	before := NewRowHash([]Field{{1, i}, {2, s}})
	after := NewRowHash([]Field{{2, s}, {1, i}, {3, s}})
	require.Equal(t, sum(before, one, one), sum(after, one, one, null))
	require.NotEqual(t, sum(before, one, one), sum(after, one, one, one))
	require.NotEqual(t, sum(before, one, null), sum(before, null, one))
	require.Equal(t, [2]uint64{}, sum(before, null, null))
	_, _, err := before.Tuple(wal.Tuple{{Kind: 'u'}}, []int{0})
	require.ErrorContains(t, err, "kind 'u'")

	a, err := oneValue(t, i, "1")
	require.NoError(t, err)
	b, err := oneValue(t, s, "1")
	require.NoError(t, err)
	hi, lo, err := before.Row([]arrow.Array{a, b}, 0)
	require.NoError(t, err)
	require.Equal(t, sum(before, one, one), [2]uint64{hi, lo})
}

func oneValue(t *testing.T, c Codec, text string) (arrow.Array, error) {
	return one(t, c, textForm, []byte(text))
}

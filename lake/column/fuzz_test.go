package column

import (
	"errors"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"
)

// A fuzz input is the place of a type in samples' codecs and a value's bytes.
// Whatever these are: no panic; an error is one of the package's and nothing is
// appended; a value has the same canonical bytes from the wire and from Arrow,
// and what Render prints of it reads as the same value.

func fuzz(f *testing.F, form form) {
	var codecs []Codec
	for i, s := range samples {
		codecs = append(codecs, mustFor(f, s.info))
		data := s.text
		if form == binaryForm {
			data = s.bin
		}
		f.Add(uint8(i), []byte(data))
	}
	for i, codec := range codecs {
		for _, e := range seeds[form] {
			if codec.Type() == e.typ {
				f.Add(uint8(i), []byte(e.data))
			}
		}
	}
	f.Fuzz(func(t *testing.T, at uint8, data []byte) {
		codec := codecs[int(at)%len(codecs)]
		arr, err := one(t, codec, form, data)
		key, kerr := codec.k.canon([]byte("p"), data, form, true)
		require.Equal(t, err == nil, kerr == nil, "%v, %v", err, kerr)
		if err != nil {
			require.True(t, errors.Is(err, ErrMalformed) || errors.Is(err, ErrUnrepresentable), "%v", err)
			require.Equal(t, "p", string(key))
			return
		}
		defer arr.Release()
		require.Equal(t, key, fromArrow(t, codec, arr))

		printed := Render(arr, 0)
		again, err := one(t, codec, textForm, []byte(printed))
		require.NoError(t, err, printed)
		defer again.Release()
		require.Equal(t, key, fromArrow(t, codec, again), printed)

		b := array.NewBuilder(memory.DefaultAllocator, codec.Arrow())
		defer b.Release()
		require.NoError(t, codec.Bind(b).From(arr, 0))
		copied := b.NewArray()
		defer copied.Release()
		require.Equal(t, key, fromArrow(t, codec, copied))
	})
}

func fromArrow(t *testing.T, codec Codec, arr arrow.Array) []byte {
	t.Helper()
	key, err := codec.k.canonArrow([]byte("p"), arr, 0, true)
	require.NoError(t, err)
	return key
}

// seeds are what the samples don't show.
var seeds = map[form][]struct{ typ, data string }{
	textForm: {
		{"int8", "-9223372036854775808"}, {"float8", "-Infinity"}, {"float8", "5e-324"}, {"float4", "NaN"},
		{"numeric(12,2)", "-9999999999.99"}, {"numeric(12,2)", "NaN"}, {"numeric(38,10)", "-0.0000000001"},
		{"bytea", `\x`}, {`"char"`, `\301`}, {`"char"`, ""}, {"date", "4714-11-24 BC"}, {"date", "5874897-12-31"}, {"date", "infinity"},
		{"time", "24:00:00"}, {"timestamp", "0044-03-15 12:00:00.5 BC"}, {"timestamp", "294247-01-10 04:00:54.775808"},
		{"timestamptz", "2024-02-29 12:34:56-03:30"}, {"int4[]", "{}"}, {"int4[]", "{NULL,1}"}, {"int4[]", "{{1},{2}}"}, {"int4[]", "[2:3]={1,2}"},
		{"text[]", `{"\\","\"",NULL,"NULL"}`}, {"timestamp[]", `{infinity}`},
	},
	binaryForm: {
		{"float8", "\xff\xf8\x00\x00\x00\x00\x00\x01"}, {"float4", "\x80\x00\x00\x00"},
		{"numeric", "\x00\x00\x00\x00\xc0\x00\x00\x00"}, {"numeric", "\x00\x01\xff\xf0\x00\x00\x00\x50\x00\x01"}, {"numeric", "\x00\x01\x00\x10\x40\x00\x00\x00\x00\x01"},
		{"numeric(12,2)", "\x00\x00\x00\x00\xd0\x00\x00\x00"}, {"numeric(12,2)", "\x00\x01\x00\x02\x00\x00\x00\x00\x00\x01"},
		{"date", "\x7f\xff\xff\xff"}, {"time", "\x00\x00\x00\x14\x1d\xd7\x60\x00"}, {"timestamp", "\x80\x00\x00\x00\x00\x00\x00\x00"},
		{"timestamp", "\x7f\xff\xff\xff\xff\xff\xff\xfe"}, {"inet", "\x02\x20\x00\x04\x01\x02\x03\x04"},
		{"int4[]", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17"}, {"int4[]", "\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x17"},
	},
}

func FuzzText(f *testing.F)   { fuzz(f, textForm) }
func FuzzBinary(f *testing.F) { fuzz(f, binaryForm) }

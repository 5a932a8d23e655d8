package column

import (
	"encoding/binary"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/require"

	"firn/wal"
)

// sample is a value of a type in both forms, for benchmarks, allocation counts
// and fuzzing.
type sample struct {
	info      wal.TypeInfo
	text, bin string
}

// elems is array_send's form of an array of one dimension.
func elems(values ...string) string {
	b := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23}
	b = binary.BigEndian.AppendUint32(b, uint32(len(values)))
	b = append(b, 0, 0, 0, 1)
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
		b = append(b, v...)
	}
	return string(b)
}

var samples = []sample{
	{base(oidBool, "bool"), "t", "\x01"},
	{base(oidInt2, "int2"), "-1234", "\xfb\x2e"},
	{base(oidInt4, "int4"), "123456789", "\x07\x5b\xcd\x15"},
	{base(oidInt8, "int8"), "1234567890123456789", "\x11\x22\x10\xf4\x7d\xe9\x81\x15"},
	{base(oidFloat4, "float4"), "0.1", "\x3d\xcc\xcc\xcd"},
	{base(oidFloat8, "float8"), "1234.5678", "\x40\x93\x4a\x45\x6d\x5c\xfa\xad"},
	{base(oidNumeric, "numeric"), "-12345.6789", "\x00\x03\x00\x01\x40\x00\x00\x04\x00\x01\x09\x29\x1a\x85"},
	{numericType(12, 2), "12345.67", "\x00\x03\x00\x01\x00\x00\x00\x02\x00\x01\x09\x29\x1a\x2c"},
	{numericType(38, 10), "1234567890123456789.0123456789", "\x00\x08\x00\x04\x00\x00\x00\x0a\x00\x7b\x11\xd7\x22\xc5\x09\x29\x1a\x85\x00\x7b\x11\xd7\x22\xc4"},
	{base(oidText, "text"), "a line of twenty-four b.", "a line of twenty-four b."},
	{base(oidJSONB, "jsonb"), `{"a": 1}`, "\x01{\"a\": 1}"},
	{base(oidChar, "char"), "a", "a"},
	{base(oidBytea, "bytea"), `\x000102030405060708090a0b0c0d0e0f`, "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"},
	{base(oidUUID, "uuid"), "00112233-4455-6677-8899-aabbccddeeff", "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"},
	{base(oidDate, "date"), "2024-02-29", "\x00\x00\x22\x79"},
	{base(oidTime, "time"), "12:34:56.789012", "\x00\x00\x00\x0a\x8b\xe6\x26\x14"},
	{base(oidTimestamp, "timestamp"), "2024-02-29 12:34:56.789012", "\x00\x02\xb5\x83\x41\x72\x86\x14"},
	{base(oidTimestamptz, "timestamptz"), "2024-02-29 12:34:56.789012+00", "\x00\x02\xb5\x83\x41\x72\x86\x14"},
	{base(oidInet, "inet"), "2001:db8::1/64", "\x03\x40\x00\x10\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"},
	{base(oidCIDR, "cidr"), "10.0.0.0/8", "\x02\x08\x01\x04\x0a\x00\x00\x00"},
	{base(oidMacaddr, "macaddr"), "08:00:2b:01:02:ff", "\x08\x00\x2b\x01\x02\xff"},
	{base(oidVarbit, "varbit"), "0101010111", "\x00\x00\x00\x0a\x55\xc0"},
	{arrayOf(base(oidInt4, "int4")), "{1,2,3,4}", elems("\x00\x00\x00\x01", "\x00\x00\x00\x02", "\x00\x00\x00\x03", "\x00\x00\x00\x04")},
	{arrayOf(base(oidText, "text")), `{abc,"a \"b\"",""}`, elems("abc", `a "b"`, "")},
	{arrayOf(numericType(12, 2)), "{12345.67}", elems("\x00\x03\x00\x01\x00\x00\x00\x02\x00\x01\x09\x29\x1a\x2c")},
	{arrayOf(base(oidTimestamp, "timestamp")), `{"2024-02-29 12:34:56.789012"}`, elems("\x00\x02\xb5\x83\x41\x72\x86\x14")},
	{arrayOf(base(oidUUID, "uuid")), "{00112233-4455-6677-8899-aabbccddeeff}", elems("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")},
	{base(1186, "interval"), "1 day", "1 day"},
}

func (s *sample) name(t testing.TB) string { return mustFor(t, s.info).Type() }

func TestSamplesAgree(t *testing.T) {
	for _, s := range samples {
		t.Run(s.name(t), func(t *testing.T) {
			agree(t, mustFor(t, s.info), []byte(s.text), []byte(s.bin), nil)
		})
	}
}

// Nothing is allocated per value, besides the builder's growth.
func TestNoAllocations(t *testing.T) {
	const n = 1000
	for _, s := range samples {
		codec := mustFor(t, s.info)
		text, bin := []byte(s.text), []byte(s.bin)
		b := array.NewBuilder(memory.DefaultAllocator, codec.Arrow())
		a := codec.Bind(b)
		require.NoError(t, a.Text(text))
		arr := b.NewArray()
		key := NewKey([]Codec{codec})
		rows := NewRowHash([]Field{{1, codec}})
		for what, fn := range map[string]func() error{
			"text":   func() error { return a.Text(text) },
			"binary": func() error { return a.Binary(bin) },
			"from":   func() error { return a.From(arr, 0) },
			"key text": func() error {
				key.Begin()
				err := key.Text(text)
				key.Sum()
				return err
			},
			"key binary": func() error {
				key.Begin()
				err := key.Binary(bin)
				key.Sum()
				return err
			},
			"key arrow": func() error {
				key.Begin()
				err := key.Arrow(arr, 0)
				key.Sum()
				return err
			},
			"row text": func() error {
				rows.Begin()
				return rows.Text(0, text)
			},
			"row arrow": func() error {
				rows.Begin()
				return rows.Arrow(0, arr, 0)
			},
		} {
			var err error
			// The builder's growth is amortised to less than one in n.
			got := testing.AllocsPerRun(n, func() { err = fn() })
			require.NoError(t, err)
			require.Zero(t, got, "%s %s", codec.Type(), what)
		}
		arr.Release()
		b.Release()
	}
}

func benchmark(b *testing.B, f form) {
	const batch = 8192
	for _, s := range samples {
		b.Run(s.name(b), func(b *testing.B) {
			codec := mustFor(b, s.info)
			data := []byte(s.text)
			if f == binaryForm {
				data = []byte(s.bin)
			}
			builder := array.NewBuilder(memory.DefaultAllocator, codec.Arrow())
			defer builder.Release()
			a := codec.Bind(builder)
			builder.Reserve(batch)
			b.ReportAllocs()
			for i := range b.N {
				var err error
				if f == textForm {
					err = a.Text(data)
				} else {
					err = a.Binary(data)
				}
				if err != nil {
					b.Fatal(err)
				}
				if i%batch == batch-1 {
					builder.NewArray().Release()
					builder.Reserve(batch)
				}
			}
		})
	}
}

func BenchmarkText(b *testing.B)   { benchmark(b, textForm) }
func BenchmarkBinary(b *testing.B) { benchmark(b, binaryForm) }

func BenchmarkKeyText(b *testing.B) {
	for _, s := range samples {
		b.Run(s.name(b), func(b *testing.B) {
			key := NewKey([]Codec{mustFor(b, s.info)})
			data := []byte(s.text)
			b.ReportAllocs()
			for range b.N {
				key.Begin()
				if err := key.Text(data); err != nil {
					b.Fatal(err)
				}
				key.Sum()
			}
		})
	}
}

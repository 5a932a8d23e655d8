package column

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Render is arr's value i as Postgres prints it, NULL as NULL. It is for
// messages, and covers the Arrow types that codecs have.
func Render(arr arrow.Array, i int) string {
	if arr.IsNull(i) {
		return "NULL"
	}
	return string(render(nil, arr, i))
}

func render(dst []byte, arr arrow.Array, i int) []byte {
	switch a := arr.(type) {
	case *array.Boolean:
		if a.Value(i) {
			return append(dst, 't')
		}
		return append(dst, 'f')
	case *array.Int32:
		return strconv.AppendInt(dst, int64(a.Value(i)), 10)
	case *array.Int64:
		return strconv.AppendInt(dst, a.Value(i), 10)
	case *array.Float32:
		return appendFloat(dst, float64(a.Value(i)), 32)
	case *array.Float64:
		return appendFloat(dst, a.Value(i), 64)
	case *array.Decimal128:
		return append(dst, a.Value(i).ToString(arr.DataType().(*arrow.Decimal128Type).Scale)...)
	case *array.Date32:
		dst, bc := appendDate(dst, int64(a.Value(i)))
		if bc {
			dst = append(dst, " BC"...)
		}
		return dst
	case *array.Time64:
		return appendClock(dst, int64(a.Value(i)))
	case *array.Timestamp:
		days, micros := splitMicros(int64(a.Value(i)))
		return appendTimestamp(dst, days, micros, arr.DataType().(*arrow.TimestampType).TimeZone != "")
	case *array.Binary:
		return hex.AppendEncode(append(dst, `\x`...), a.Value(i))
	case *array.FixedSizeBinary:
		return appendUUIDText(dst, a.Value(i))
	case array.ExtensionArray:
		return render(dst, a.Storage(), i)
	case array.ListLike:
		return renderList(dst, a, i)
	}
	if v, ok := arrowBytes(arr, i); ok {
		return append(dst, v...)
	}
	return append(dst, arr.ValueStr(i)...)
}

// appendUUIDText prints sixteen bytes as a uuid, any other number in
// hexadecimal.
func appendUUIDText(dst, v []byte) []byte {
	if len(v) != 16 {
		return hex.AppendEncode(append(dst, `\x`...), v)
	}
	for i, b := range v {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexDigits[b>>4], hexDigits[b&15])
	}
	return dst
}

// appendFloat prints the fewest digits that give v again (Postgres may print one
// more), with an exponent where Postgres has one.
func appendFloat(dst []byte, v float64, bits int) []byte {
	switch {
	case v != v:
		return append(dst, "NaN"...)
	case math.IsInf(v, 0):
		if v < 0 {
			dst = append(dst, '-')
		}
		return append(dst, "Infinity"...)
	}
	var buf [32]byte
	e := strconv.AppendFloat(buf[:0], v, 'e', -1, bits)
	exp, err := strconv.Atoi(string(e[strings.IndexByte(string(e), 'e')+1:]))
	limit := 15 // DBL_DIG
	if bits == 32 {
		limit = 6 // FLT_DIG
	}
	if err != nil || exp < -4 || exp >= limit {
		return append(dst, e...)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, bits)
}

func renderList(dst []byte, a array.ListLike, i int) []byte {
	values := a.ListValues()
	from, to := a.ValueOffsets(i)
	dst = append(dst, '{')
	for j := int(from); j < int(to); j++ {
		if j > int(from) {
			dst = append(dst, ',')
		}
		if values.IsNull(j) {
			dst = append(dst, "NULL"...)
			continue
		}
		dst = appendElem(dst, string(render(nil, values, j)))
	}
	return append(dst, '}')
}

// appendElem quotes an array's element where array_out does.
func appendElem(dst []byte, s string) []byte {
	if s != "" && !strings.EqualFold(s, "NULL") && !strings.ContainsAny(s, "\"\\{}, \t\n\r\v\f") {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	for j := range len(s) {
		if s[j] == '"' || s[j] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[j])
	}
	return append(dst, '"')
}

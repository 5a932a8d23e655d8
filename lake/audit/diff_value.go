package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// appendValue appends the JSON form of arr's value i, after Iceberg's JSON
// single-value serialization: decimals are strings, so that no digit is lost,
// dates and times ISO 8601, binary hexadecimal. Floats that JSON has no number
// for are strings too. bare leaves the quotes out where the value has no need
// of them, for people.
func appendValue(dst []byte, arr arrow.Array, i int, bare bool) ([]byte, error) {
	if arr.IsNull(i) {
		if bare {
			return append(dst, "NULL"...), nil
		}
		return append(dst, "null"...), nil
	}
	switch a := arr.(type) {
	case *array.Boolean:
		return strconv.AppendBool(dst, a.Value(i)), nil
	case *array.Int32:
		return strconv.AppendInt(dst, int64(a.Value(i)), 10), nil
	case *array.Int64:
		return strconv.AppendInt(dst, a.Value(i), 10), nil
	case *array.Float32:
		return appendFloat(dst, float64(a.Value(i)), 32, bare), nil
	case *array.Float64:
		return appendFloat(dst, a.Value(i), 64, bare), nil
	case *array.String:
		return appendQuoted(dst, a.Value(i))
	case *array.LargeString:
		return appendQuoted(dst, a.Value(i))
	case array.ListLike:
		return appendValues(dst, a, i, bare)
	}
	if bare {
		return appendWord(dst, arr, i)
	}
	dst, err := appendWord(append(dst, '"'), arr, i)
	return append(dst, '"'), err
}

// appendWord appends values whose form needs no escapes.
func appendWord(dst []byte, arr arrow.Array, i int) ([]byte, error) {
	switch a := arr.(type) {
	case *array.Date32:
		return time.Unix(int64(a.Value(i))*86400, 0).UTC().AppendFormat(dst, time.DateOnly), nil
	case *array.Time64:
		return a.Value(i).ToTime(a.DataType().(*arrow.Time64Type).Unit).UTC().AppendFormat(dst, "15:04:05.000000"), nil
	case *array.Timestamp:
		typ := a.DataType().(*arrow.TimestampType)
		form := "2006-01-02T15:04:05.000000"
		if typ.TimeZone != "" {
			form += "-07:00"
		}
		return a.Value(i).ToTime(typ.Unit).UTC().AppendFormat(dst, form), nil
	case *array.Binary:
		return hex.AppendEncode(dst, a.Value(i)), nil
	case *array.LargeBinary:
		return hex.AppendEncode(dst, a.Value(i)), nil
	case *array.FixedSizeBinary:
		return hex.AppendEncode(dst, a.Value(i)), nil
	}
	return appendPlain(dst, arr, i) // decimals and uuids
}

func appendFloat(dst []byte, v float64, bits int, bare bool) []byte {
	word := ""
	switch {
	case math.IsNaN(v):
		word = "NaN"
	case math.IsInf(v, 1):
		word = "Infinity"
	case math.IsInf(v, -1):
		word = "-Infinity"
	default:
		return strconv.AppendFloat(dst, v, 'g', -1, bits)
	}
	if bare {
		return append(dst, word...)
	}
	return strconv.AppendQuote(dst, word)
}

func appendQuoted(dst []byte, s string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return nil, fmt.Errorf("write text: %w", err)
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...), nil
}

func appendValues(dst []byte, a array.ListLike, i int, bare bool) ([]byte, error) {
	dst = append(dst, '[')
	from, to := a.ValueOffsets(i)
	for at := from; at < to; at++ {
		if at > from {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendValue(dst, a.ListValues(), int(at), bare); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

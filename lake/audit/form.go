package audit

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
	"github.com/jackc/pgx/v5"
)

// The plain form of a value is a text that both sides make by themselves:
//
//	boolean           t, f
//	int, long         decimal digits
//	float, double     the IEEE 754 bits in hexadecimal; one NaN
//	decimal           digits with the type's scale
//	date              days since 1970-01-01
//	time              microseconds since midnight
//	timestamp(tz)     microseconds since 1970-01-01 00:00 (UTC)
//	string            itself
//	uuid              as Postgres prints it
//	binary            hexadecimal
//	list              of each element its length in characters, a colon and its
//	                  plain form, or N for NULL; a comma after each

// expression is the SQL that makes the plain form of a column, given as quoted
// SQL, that the lake holds as typ. The session's search_path is pg_catalog.
func expression(column string, typ iceberg.Type) (string, error) {
	list, ok := typ.(*iceberg.ListType)
	if !ok {
		return scalarExpression(column, typ)
	}
	element, err := scalarExpression("u.e", list.Element)
	if err != nil {
		return "", err
	}
	return "CASE WHEN num_nulls(" + column + ") = 0 THEN (SELECT coalesce(string_agg(coalesce(length(p.x) || ':' || p.x, 'N') || ',', '' ORDER BY p.i), '')" +
		" FROM (SELECT " + element + " AS x, u.i FROM unnest(" + column + ") WITH ORDINALITY u(e, i)) p) END", nil
}

func scalarExpression(c string, typ iceberg.Type) (string, error) {
	switch typ.(type) {
	case iceberg.Float32Type:
		return "encode(float4send(CASE WHEN " + c + " = 'NaN' THEN 'NaN'::float4 ELSE " + c + " END), 'hex')", nil
	case iceberg.Float64Type:
		return "encode(float8send(CASE WHEN " + c + " = 'NaN' THEN 'NaN'::float8 ELSE " + c + " END), 'hex')", nil
	case iceberg.DateType:
		return "(" + c + " - date '1970-01-01')::text", nil
	case iceberg.TimeType, iceberg.TimestampType, iceberg.TimestampTzType:
		return "(extract(epoch FROM " + c + ") * 1000000)::bigint::text", nil
	case iceberg.BinaryType, iceberg.FixedType:
		return "encode(" + c + ", 'hex')", nil
	case iceberg.BooleanType, iceberg.Int32Type, iceberg.Int64Type, iceberg.DecimalType, iceberg.StringType, iceberg.UUIDType:
		// The type's output function, where a cast to text may be a user's own;
		// num_nulls, for IS NULL holds for a row of NULLs.
		return "CASE WHEN num_nulls(" + c + ") = 0 THEN format('%s', " + c + ") END", nil
	}
	return "", fmt.Errorf("compare values of type %s: there is no plain form of it", typ)
}

func quoteName(name string) string { return pgx.Identifier{name}.Sanitize() }

// appendPlain appends the plain form of arr's value i, which is not NULL.
func appendPlain(dst []byte, arr arrow.Array, i int) ([]byte, error) {
	switch a := arr.(type) {
	case *array.Boolean:
		if a.Value(i) {
			return append(dst, 't'), nil
		}
		return append(dst, 'f'), nil
	case *array.Int32:
		return strconv.AppendInt(dst, int64(a.Value(i)), 10), nil
	case *array.Int64:
		return strconv.AppendInt(dst, a.Value(i), 10), nil
	case *array.Float32:
		bits := math.Float32bits(a.Value(i))
		if a.Value(i) != a.Value(i) {
			bits = 0x7fc00000
		}
		return fmt.Appendf(dst, "%08x", bits), nil
	case *array.Float64:
		bits := math.Float64bits(a.Value(i))
		if a.Value(i) != a.Value(i) {
			bits = 0x7ff8000000000000
		}
		return fmt.Appendf(dst, "%016x", bits), nil
	case *array.Decimal128:
		return appendDecimal(dst, a.Value(i).BigInt(), int(a.DataType().(*arrow.Decimal128Type).Scale)), nil
	case *array.Date32:
		return strconv.AppendInt(dst, int64(a.Value(i)), 10), nil
	case *array.Time64:
		if u := a.DataType().(*arrow.Time64Type).Unit; u != arrow.Microsecond {
			return nil, fmt.Errorf("read time: its unit is %s", u)
		}
		return strconv.AppendInt(dst, int64(a.Value(i)), 10), nil
	case *array.Timestamp:
		if u := a.DataType().(*arrow.TimestampType).Unit; u != arrow.Microsecond {
			return nil, fmt.Errorf("read timestamp: its unit is %s", u)
		}
		return strconv.AppendInt(dst, int64(a.Value(i)), 10), nil
	case *array.String:
		return append(dst, a.Value(i)...), nil
	case *array.LargeString:
		return append(dst, a.Value(i)...), nil
	case *array.Binary:
		return hex.AppendEncode(dst, a.Value(i)), nil
	case *array.LargeBinary:
		return hex.AppendEncode(dst, a.Value(i)), nil
	case *array.FixedSizeBinary:
		return hex.AppendEncode(dst, a.Value(i)), nil
	case array.ExtensionArray:
		dst, err := appendPlain(dst, a.Storage(), i)
		if a.ExtensionType().ExtensionName() == "arrow.uuid" && err == nil {
			n := len(dst) - 32
			h := string(dst[n:])
			dst = append(dst[:n], h[:8]+"-"+h[8:12]+"-"+h[12:16]+"-"+h[16:20]+"-"+h[20:]...)
		}
		return dst, err
	case array.ListLike:
		return appendList(dst, a, i)
	}
	return nil, fmt.Errorf("compare values of Arrow type %s: there is no plain form of it", arr.DataType())
}

func appendList(dst []byte, a array.ListLike, i int) ([]byte, error) {
	values := a.ListValues()
	var element []byte
	var err error
	for from, to := a.ValueOffsets(i); from < to; from++ {
		if values.IsNull(int(from)) {
			dst = append(dst, "N,"...)
			continue
		}
		if element, err = appendPlain(element[:0], values, int(from)); err != nil {
			return nil, err
		}
		dst = strconv.AppendInt(dst, int64(utf8.RuneCount(element)), 10)
		dst = append(append(append(dst, ':'), element...), ',')
	}
	return dst, nil
}

func appendDecimal(dst []byte, v *big.Int, scale int) []byte {
	digits := v.String()
	if scale <= 0 {
		return append(dst, digits...)
	}
	if digits[0] == '-' {
		dst, digits = append(dst, '-'), digits[1:]
	}
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale-len(digits)+1) + digits
	}
	point := len(digits) - scale
	return append(append(append(dst, digits[:point]...), '.'), digits[point:]...)
}

// show makes a plain form readable, for messages.
func show(plain []byte, typ iceberg.Type) string {
	n, err := strconv.ParseInt(string(plain), 10, 64)
	switch typ.(type) {
	case iceberg.DateType:
		if err == nil {
			return time.Unix(n*86400, 0).UTC().Format(time.DateOnly)
		}
	case iceberg.TimeType:
		if err == nil {
			return time.UnixMicro(n).UTC().Format("15:04:05.999999")
		}
	case iceberg.TimestampType, iceberg.TimestampTzType:
		if err == nil {
			return time.UnixMicro(n).UTC().Format("2006-01-02 15:04:05.999999")
		}
	case iceberg.Float32Type:
		if bits, err := strconv.ParseUint(string(plain), 16, 32); err == nil {
			return strconv.FormatFloat(float64(math.Float32frombits(uint32(bits))), 'g', -1, 32)
		}
	case iceberg.Float64Type:
		if bits, err := strconv.ParseUint(string(plain), 16, 64); err == nil {
			return strconv.FormatFloat(math.Float64frombits(bits), 'g', -1, 64)
		}
	case iceberg.BinaryType, iceberg.FixedType:
		return `\x` + string(plain)
	}
	return string(plain)
}

package partition

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/iceberg-go"
	"github.com/google/uuid"
	"github.com/twmb/murmur3"
)

// cell gives the partition value of a column's rows: appended to a key, by which
// equal values are told, and as iceberg-go wants it in a manifest.
type cell struct {
	key   func(dst []byte, row int) []byte
	value func(row int) any
}

// newCell binds a transform to a column.
func newCell(t iceberg.Transform, typ iceberg.Type, a arrow.Array) (cell, error) {
	if e, ok := a.(array.ExtensionArray); ok {
		a = e.Storage()
	}
	if num := numbers(a); num != nil {
		return numberCell(t, typ, a, num)
	}
	if d, ok := a.(*array.Decimal128); ok {
		return decimalCell(t, d)
	}
	if raw := bytesOf(a); raw != nil {
		return bytesCell(t, typ, a, raw)
	}
	return cell{}, unsuited(t, a)
}

func unsuited(t iceberg.Transform, a arrow.Array) error {
	return fmt.Errorf("no %s of %s", t, a.DataType())
}

// numbers reads a column of what are whole numbers; nil: it is none.
func numbers(a arrow.Array) func(row int) int64 {
	switch a := a.(type) {
	case *array.Boolean:
		return func(row int) int64 {
			if a.Value(row) {
				return 1
			}
			return 0
		}
	case *array.Int32:
		return func(row int) int64 { return int64(a.Value(row)) }
	case *array.Int64:
		return a.Value
	case *array.Date32:
		return func(row int) int64 { return int64(a.Value(row)) }
	case *array.Time64:
		return func(row int) int64 { return int64(a.Value(row)) }
	case *array.Timestamp:
		return func(row int) int64 { return int64(a.Value(row)) }
	}
	return nil
}

const (
	hourMicros = int64(time.Hour / time.Microsecond)
	dayMicros  = 24 * hourMicros
)

// floorDiv is a/b rounded down, for b above zero.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// fit keeps a partition value within the 32 bits that Iceberg gives it. Hours
// beyond the year 246,000 are all the last one: an order that readers may prune
// by.
func fit(v int64) int64 { return min(max(v, math.MinInt32), math.MaxInt32) }

// months are those since 1970-01-01, of days since then.
func months(days int64) int64 {
	t := time.Unix(days*86400, 0).UTC()
	return int64(t.Year()-1970)*12 + int64(t.Month()) - 1
}

// transformNumber is the transform of whole numbers; in a date or timestamp
// they count days or microseconds.
func transformNumber(t iceberg.Transform, typ iceberg.Type) func(v int64) int64 {
	unit := dayMicros
	if _, date := typ.(iceberg.DateType); date {
		unit = 1
	}
	switch t := t.(type) {
	case iceberg.IdentityTransform:
		return func(v int64) int64 { return v }
	case iceberg.YearTransform:
		return func(v int64) int64 { return floorDiv(months(floorDiv(v, unit)), 12) }
	case iceberg.MonthTransform:
		return func(v int64) int64 { return fit(months(floorDiv(v, unit))) }
	case iceberg.DayTransform:
		return func(v int64) int64 { return fit(floorDiv(v, unit)) }
	case iceberg.HourTransform:
		return func(v int64) int64 { return fit(floorDiv(v, hourMicros)) }
	case iceberg.BucketTransform:
		n := int32(t.NumBuckets)
		return func(v int64) int64 {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], uint64(v))
			return int64(bucket(b[:], n))
		}
	case iceberg.TruncateTransform:
		w := int64(t.Width)
		return func(v int64) int64 { return v - ((v%w)+w)%w }
	}
	return nil
}

// bucket is the hash of a value's bytes, by Iceberg's specification, appendix B.
func bucket(b []byte, n int32) int32 { return (int32(murmur3.Sum32(b)) & math.MaxInt32) % n }

func numberCell(t iceberg.Transform, typ iceberg.Type, a arrow.Array, num func(int) int64) (cell, error) {
	apply := transformNumber(t, typ)
	if apply == nil {
		return cell{}, unsuited(t, a)
	}
	wrap, err := numberValue(t.ResultType(typ))
	if err != nil {
		return cell{}, err
	}
	return cell{
		key: func(dst []byte, row int) []byte {
			if a.IsNull(row) {
				return append(dst, 0)
			}
			return binary.BigEndian.AppendUint64(append(dst, 1), uint64(apply(num(row))))
		},
		value: func(row int) any {
			if a.IsNull(row) {
				return nil
			}
			return wrap(apply(num(row)))
		},
	}, nil
}

// numberValue makes a manifest's value of a whole number.
func numberValue(typ iceberg.Type) (func(v int64) any, error) {
	switch typ.(type) {
	case iceberg.BooleanType:
		return func(v int64) any { return v != 0 }, nil
	case iceberg.Int32Type:
		return func(v int64) any { return int32(v) }, nil
	case iceberg.Int64Type:
		return func(v int64) any { return v }, nil
	case iceberg.DateType:
		return func(v int64) any { return iceberg.Date(v) }, nil
	case iceberg.TimeType:
		return func(v int64) any { return iceberg.Time(v) }, nil
	case iceberg.TimestampType, iceberg.TimestampTzType:
		return func(v int64) any { return iceberg.Timestamp(v) }, nil
	}
	return nil, fmt.Errorf("a partition value can't be %s", typ)
}

// decimalCell is of numeric columns.
func decimalCell(t iceberg.Transform, a *array.Decimal128) (cell, error) {
	scale := int(a.DataType().(*arrow.Decimal128Type).Scale)
	if b, ok := t.(iceberg.BucketTransform); ok {
		of := func(row int) int64 {
			var buf [16]byte
			return int64(bucket(shortest(&buf, a.Value(row)), int32(b.NumBuckets)))
		}
		return numberCell(iceberg.IdentityTransform{}, iceberg.PrimitiveTypes.Int32, a, of)
	}
	apply := func(v decimal128.Num) decimal128.Num { return v }
	switch t := t.(type) {
	case iceberg.IdentityTransform:
	case iceberg.TruncateTransform:
		w := int64(t.Width)
		apply = func(v decimal128.Num) decimal128.Num { return truncateDecimal(v, w) }
	default:
		return cell{}, unsuited(t, a)
	}
	return cell{
		key: func(dst []byte, row int) []byte {
			if a.IsNull(row) {
				return append(dst, 0)
			}
			v := apply(a.Value(row))
			return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(append(dst, 1), uint64(v.HighBits())), v.LowBits())
		},
		value: func(row int) any {
			if a.IsNull(row) {
				return nil
			}
			return iceberg.Decimal{Val: apply(a.Value(row)), Scale: scale}
		},
	}, nil
}

// shortest is v in the fewest bytes of two's complement, the highest first.
func shortest(buf *[16]byte, v decimal128.Num) []byte {
	binary.BigEndian.PutUint64(buf[:8], uint64(v.HighBits()))
	binary.BigEndian.PutUint64(buf[8:], v.LowBits())
	sign := byte(v.HighBits() >> 63) // 0 or 0xff
	at := 0
	for at < 15 && buf[at] == sign && (buf[at+1]^sign)&0x80 == 0 {
		at++
	}
	return buf[at:]
}

// truncateDecimal is the next multiple of w units of the last digit, downwards.
func truncateDecimal(v decimal128.Num, w int64) decimal128.Num {
	if low := int64(v.LowBits()); v.HighBits() == low>>63 && low > math.MinInt64+math.MaxInt32 {
		return decimal128.FromI64(low - ((low%w)+w)%w)
	}
	n := v.BigInt() // of more than 18 digits
	return decimal128.FromBigInt(n.Sub(n, new(big.Int).Mod(n, big.NewInt(w))))
}

// bytesOf reads a column of texts or bytes, which are the array's.
func bytesOf(a arrow.Array) func(row int) []byte {
	switch a := a.(type) {
	case *array.String:
		return func(row int) []byte {
			v := a.Value(row)
			return unsafe.Slice(unsafe.StringData(v), len(v))
		}
	case *array.Binary:
		return a.Value
	case *array.FixedSizeBinary:
		return a.Value
	}
	return nil
}

func bytesCell(t iceberg.Transform, typ iceberg.Type, a arrow.Array, raw func(int) []byte) (cell, error) {
	apply := func(b []byte) []byte { return b }
	_, text := typ.(iceberg.StringType)
	_, id := typ.(iceberg.UUIDType)
	switch t := t.(type) {
	case iceberg.IdentityTransform:
	case iceberg.BucketTransform:
		of := func(row int) int64 { return int64(bucket(raw(row), int32(t.NumBuckets))) }
		return numberCell(iceberg.IdentityTransform{}, iceberg.PrimitiveTypes.Int32, a, of)
	case iceberg.TruncateTransform:
		switch {
		case id:
			return cell{}, unsuited(t, a)
		case text:
			apply = func(b []byte) []byte { return firstRunes(b, t.Width) }
		default:
			apply = func(b []byte) []byte { return b[:min(len(b), t.Width)] }
		}
	default:
		return cell{}, unsuited(t, a)
	}
	return cell{
		key: func(dst []byte, row int) []byte {
			if a.IsNull(row) {
				return append(dst, 0)
			}
			b := apply(raw(row))
			return append(binary.BigEndian.AppendUint32(append(dst, 1), uint32(len(b))), b...)
		},
		value: func(row int) any {
			if a.IsNull(row) {
				return nil
			}
			switch b := apply(raw(row)); {
			case text:
				return string(b)
			case id:
				return uuid.UUID(b)
			default:
				return append([]byte{}, b...)
			}
		},
	}, nil
}

// firstRunes is the first n characters of a text.
func firstRunes(b []byte, n int) []byte {
	at := 0
	for ; n > 0 && at < len(b); n-- {
		_, size := utf8.DecodeRune(b[at:])
		at += size
	}
	return b[:at]
}

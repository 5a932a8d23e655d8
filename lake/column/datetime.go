package column

import (
	"encoding/binary"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
)

const (
	whyInfinite  = "Iceberg has no infinite dates"
	whyMidnight  = "Iceberg's time ends before 24:00"
	whyOverflow  = "it is later than 294247-01-10 04:00:54.775807, the last microsecond that Iceberg's timestamp counts"
	textInfinity = "infinity"
	textMinusInf = "-infinity"
)

// dateKind is date: date.
type dateKind struct{}

func (dateKind) name() string          { return "date" }
func (dateKind) iceberg() iceberg.Type { return iceberg.PrimitiveTypes.Date }
func (dateKind) arrow() arrow.DataType { return arrow.FixedWidthTypes.Date32 }
func (dateKind) binary() bool          { return true }
func (dateKind) fixed() int            { return 4 }

func (dateKind) text(data []byte) (arrow.Date32, error) {
	rest, bc := cutBC(data)
	days, rest, ok := parseDate(rest, bc)
	if ok && len(rest) == 0 && days >= firstDay && days <= math.MaxInt32 {
		return arrow.Date32(days), nil
	}
	if s := string(data); s == textInfinity || s == textMinusInf {
		return 0, unrepresentable("date", data, whyInfinite)
	}
	return 0, malformed("date", data, textForm)
}

func (dateKind) bin(data []byte) (arrow.Date32, error) {
	if len(data) != 4 {
		return 0, malformed("date", data, binaryForm)
	}
	switch v := int32(binary.BigEndian.Uint32(data)); {
	case v == math.MaxInt32:
		return 0, unrepresentable("date", []byte(textInfinity), whyInfinite)
	case v == math.MinInt32:
		return 0, unrepresentable("date", []byte(textMinusInf), whyInfinite)
	case v > math.MaxInt32-epochDays || v < firstDay-epochDays: // beyond Postgres' own range
		return 0, malformed("date", data, binaryForm)
	default:
		return arrow.Date32(v + epochDays), nil
	}
}

func (k dateKind) canon(dst, data []byte, f form, _ bool) ([]byte, error) {
	var v arrow.Date32
	var err error
	if f == textForm {
		v, err = k.text(data)
	} else {
		v, err = k.bin(data)
	}
	if err != nil {
		return dst, err
	}
	return binary.BigEndian.AppendUint32(dst, uint32(v)), nil
}

func (k dateKind) canonArrow(dst []byte, arr arrow.Array, i int, _ bool) ([]byte, error) {
	a, ok := arr.(*array.Date32)
	if !ok {
		return dst, errArray(k, arr)
	}
	return binary.BigEndian.AppendUint32(dst, uint32(a.Value(i))), nil
}

func (k dateKind) bind(b array.Builder) Appender {
	bb, ok := b.(*array.Date32Builder)
	if !ok {
		panic(badBuilder(k, b))
	}
	return &dateAppender{b: bb}
}

type dateAppender struct {
	unlimited
	b *array.Date32Builder
}

func (a *dateAppender) Text(data []byte) error {
	v, err := dateKind{}.text(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *dateAppender) Binary(data []byte) error {
	v, err := dateKind{}.bin(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *dateAppender) Null()          { a.b.AppendNull() }
func (a *dateAppender) canon(b []byte) { a.b.Append(arrow.Date32(binary.BigEndian.Uint32(b))) }

func (a *dateAppender) From(arr arrow.Array, i int) error {
	v, ok := arr.(*array.Date32)
	switch {
	case !ok:
		return errArray(dateKind{}, arr)
	case v.IsNull(i):
		a.b.AppendNull()
	default:
		a.b.Append(v.Value(i))
	}
	return nil
}

// timeKind is time: time in microseconds.
type timeKind struct{}

func (timeKind) name() string          { return "time" }
func (timeKind) iceberg() iceberg.Type { return iceberg.PrimitiveTypes.Time }
func (timeKind) arrow() arrow.DataType { return arrow.FixedWidthTypes.Time64us }
func (timeKind) binary() bool          { return true }
func (timeKind) fixed() int            { return 8 }

func (timeKind) text(data []byte) (arrow.Time64, error) {
	v, rest, ok := parseClock(data)
	if !ok || len(rest) != 0 {
		return 0, malformed("time", data, textForm)
	}
	if v == dayMicros {
		return 0, unrepresentable("time", data, whyMidnight)
	}
	return arrow.Time64(v), nil
}

func (timeKind) bin(data []byte) (arrow.Time64, error) {
	if len(data) != 8 {
		return 0, malformed("time", data, binaryForm)
	}
	v := binary.BigEndian.Uint64(data)
	if v == dayMicros {
		return 0, unrepresentable("time", []byte("24:00:00"), whyMidnight)
	}
	if v > dayMicros {
		return 0, malformed("time", data, binaryForm)
	}
	return arrow.Time64(v), nil
}

func (k timeKind) canon(dst, data []byte, f form, _ bool) ([]byte, error) {
	var v arrow.Time64
	var err error
	if f == textForm {
		v, err = k.text(data)
	} else {
		v, err = k.bin(data)
	}
	if err != nil {
		return dst, err
	}
	return binary.BigEndian.AppendUint64(dst, uint64(v)), nil
}

func (k timeKind) canonArrow(dst []byte, arr arrow.Array, i int, _ bool) ([]byte, error) {
	a, ok := arr.(*array.Time64)
	if !ok || arr.DataType().(*arrow.Time64Type).Unit != arrow.Microsecond {
		return dst, errArray(k, arr)
	}
	return binary.BigEndian.AppendUint64(dst, uint64(a.Value(i))), nil
}

func (k timeKind) bind(b array.Builder) Appender {
	bb, ok := b.(*array.Time64Builder)
	if !ok || !arrow.TypeEqual(b.Type(), k.arrow()) {
		panic(badBuilder(k, b))
	}
	return &timeAppender{b: bb}
}

type timeAppender struct {
	unlimited
	b *array.Time64Builder
}

func (a *timeAppender) Text(data []byte) error {
	v, err := timeKind{}.text(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *timeAppender) Binary(data []byte) error {
	v, err := timeKind{}.bin(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *timeAppender) Null()          { a.b.AppendNull() }
func (a *timeAppender) canon(b []byte) { a.b.Append(arrow.Time64(binary.BigEndian.Uint64(b))) }

func (a *timeAppender) From(arr arrow.Array, i int) error {
	v, ok := arr.(*array.Time64)
	switch {
	case !ok || arr.DataType().(*arrow.Time64Type).Unit != arrow.Microsecond:
		return errArray(timeKind{}, arr)
	case v.IsNull(i):
		a.b.AppendNull()
	default:
		a.b.Append(v.Value(i))
	}
	return nil
}

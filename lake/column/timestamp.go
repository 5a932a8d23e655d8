package column

import (
	"encoding/binary"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
)

// timestampKind is timestamp and timestamptz: timestamp and timestamptz in
// microseconds. The session's time zone is UTC, but any offset is understood.
type timestampKind struct{ tz bool }

func (k timestampKind) name() string {
	if k.tz {
		return "timestamptz"
	}
	return "timestamp"
}

func (k timestampKind) iceberg() iceberg.Type {
	if k.tz {
		return iceberg.PrimitiveTypes.TimestampTz
	}
	return iceberg.PrimitiveTypes.Timestamp
}

func (k timestampKind) arrow() arrow.DataType {
	if k.tz {
		return arrow.FixedWidthTypes.Timestamp_us
	}
	return &arrow.TimestampType{Unit: arrow.Microsecond}
}

func (timestampKind) binary() bool { return true }
func (timestampKind) fixed() int   { return 8 }

func (k timestampKind) text(data []byte) (arrow.Timestamp, error) {
	rest, bc := cutBC(data)
	days, rest, ok := parseDate(rest, bc)
	if !ok || len(rest) == 0 || rest[0] != ' ' {
		if s := string(data); s == textInfinity || s == textMinusInf {
			return 0, unrepresentable(k.name(), data, whyInfinite)
		}
		return 0, malformed(k.name(), data, textForm)
	}
	micros, rest, ok := parseClock(rest[1:])
	if ok && k.tz {
		var east int64
		east, ok = parseOffset(rest)
		micros -= east
	} else {
		ok = ok && len(rest) == 0
	}
	if !ok {
		return 0, malformed(k.name(), data, textForm)
	}
	if days > maxMicrosDay {
		return 0, unrepresentable(k.name(), data, whyOverflow)
	}
	if days < firstDay {
		return 0, malformed(k.name(), data, textForm)
	}
	v := days*dayMicros + micros
	if days > 0 && v < 0 {
		return 0, unrepresentable(k.name(), data, whyOverflow)
	}
	return arrow.Timestamp(v), nil
}

func (k timestampKind) bin(data []byte) (arrow.Timestamp, error) {
	if len(data) != 8 {
		return 0, malformed(k.name(), data, binaryForm)
	}
	v := int64(binary.BigEndian.Uint64(data))
	if v <= math.MaxInt64-epochMicros && v >= (firstDay-epochDays)*dayMicros {
		return arrow.Timestamp(v + epochMicros), nil
	}
	switch {
	case v == math.MaxInt64:
		return 0, unrepresentable(k.name(), []byte(textInfinity), whyInfinite)
	case v == math.MinInt64:
		return 0, unrepresentable(k.name(), []byte(textMinusInf), whyInfinite)
	case v < 0: // before Postgres' own range
		return 0, malformed(k.name(), data, binaryForm)
	}
	days, micros := splitMicros(v)
	return 0, unrepresentable(k.name(), appendTimestamp(nil, days+epochDays, micros, k.tz), whyOverflow)
}

func (k timestampKind) canon(dst, data []byte, f form, _ bool) ([]byte, error) {
	var v arrow.Timestamp
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

// array checks the unit and that both or neither are with a time zone.
func (k timestampKind) array(arr arrow.Array) (*array.Timestamp, error) {
	if a, ok := arr.(*array.Timestamp); ok {
		t := arr.DataType().(*arrow.TimestampType)
		if t.Unit == arrow.Microsecond && (t.TimeZone != "") == k.tz {
			return a, nil
		}
	}
	return nil, errArray(k, arr)
}

func (k timestampKind) canonArrow(dst []byte, arr arrow.Array, i int, _ bool) ([]byte, error) {
	a, err := k.array(arr)
	if err != nil {
		return dst, err
	}
	return binary.BigEndian.AppendUint64(dst, uint64(a.Value(i))), nil
}

func (k timestampKind) bind(b array.Builder) Appender {
	bb, ok := b.(*array.TimestampBuilder)
	if !ok || !arrow.TypeEqual(b.Type(), k.arrow()) {
		panic(badBuilder(k, b))
	}
	return &timestampAppender{k: k, b: bb}
}

type timestampAppender struct {
	unlimited
	k timestampKind
	b *array.TimestampBuilder
}

func (a *timestampAppender) Text(data []byte) error {
	v, err := a.k.text(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *timestampAppender) Binary(data []byte) error {
	v, err := a.k.bin(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *timestampAppender) Null()          { a.b.AppendNull() }
func (a *timestampAppender) canon(b []byte) { a.b.Append(arrow.Timestamp(binary.BigEndian.Uint64(b))) }

func (a *timestampAppender) From(arr arrow.Array, i int) error {
	v, err := a.k.array(arr)
	switch {
	case err != nil:
		return err
	case v.IsNull(i):
		a.b.AppendNull()
	default:
		a.b.Append(v.Value(i))
	}
	return nil
}

package column

import (
	"encoding/binary"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
)

// unlimited is the room of builders without variable-length data.
type unlimited struct{}

func (unlimited) room(int) bool { return true }

// boolKind is bool: boolean.
type boolKind struct{}

func (boolKind) name() string          { return "bool" }
func (boolKind) iceberg() iceberg.Type { return iceberg.PrimitiveTypes.Bool }
func (boolKind) arrow() arrow.DataType { return arrow.FixedWidthTypes.Boolean }
func (boolKind) binary() bool          { return true }
func (boolKind) fixed() int            { return 1 }

func (k boolKind) value(data []byte, f form) (bool, error) {
	if len(data) == 1 {
		c := data[0]
		if f == textForm {
			if c == 't' || c == 'f' {
				return c == 't', nil
			}
		} else if c <= 1 {
			return c == 1, nil
		}
	}
	return false, malformed("bool", data, f)
}

func (k boolKind) canon(dst, data []byte, f form, _ bool) ([]byte, error) {
	v, err := k.value(data, f)
	if err != nil {
		return dst, err
	}
	return append(dst, boolByte(v)), nil
}

func (k boolKind) canonArrow(dst []byte, arr arrow.Array, i int, _ bool) ([]byte, error) {
	a, ok := arr.(*array.Boolean)
	if !ok {
		return dst, errArray(k, arr)
	}
	return append(dst, boolByte(a.Value(i))), nil
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func (k boolKind) bind(b array.Builder) Appender {
	bb, ok := b.(*array.BooleanBuilder)
	if !ok {
		panic(badBuilder(k, b))
	}
	return &boolAppender{b: bb}
}

type boolAppender struct {
	unlimited
	b *array.BooleanBuilder
}

func (a *boolAppender) Text(data []byte) error {
	v, err := boolKind{}.value(data, textForm)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *boolAppender) Binary(data []byte) error {
	v, err := boolKind{}.value(data, binaryForm)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *boolAppender) Null()          { a.b.AppendNull() }
func (a *boolAppender) canon(b []byte) { a.b.Append(b[0] == 1) }

func (a *boolAppender) From(arr arrow.Array, i int) error {
	v, ok := arr.(*array.Boolean)
	switch {
	case !ok:
		return errArray(boolKind{}, arr)
	case v.IsNull(i):
		a.b.AppendNull()
	default:
		a.b.Append(v.Value(i))
	}
	return nil
}

// int32Kind is int2 and int4: int. Both have keys of four bytes, so that
// widening one to the other changes nothing in the lake.
type int32Kind struct {
	typ  string
	wire int // bytes on the wire
}

func (k int32Kind) name() string        { return k.typ }
func (int32Kind) iceberg() iceberg.Type { return iceberg.PrimitiveTypes.Int32 }
func (int32Kind) arrow() arrow.DataType { return arrow.PrimitiveTypes.Int32 }
func (int32Kind) binary() bool          { return true }
func (int32Kind) fixed() int            { return 4 }

func (k int32Kind) text(data []byte) (int32, error) {
	v, ok := parseInt(data)
	if !ok || int64(int32(v)) != v || k.wire == 2 && int64(int16(v)) != v {
		return 0, malformed(k.typ, data, textForm)
	}
	return int32(v), nil
}

func (k int32Kind) bin(data []byte) (int32, error) {
	if len(data) == k.wire {
		if k.wire == 4 {
			return int32(binary.BigEndian.Uint32(data)), nil
		}
		return int32(int16(binary.BigEndian.Uint16(data))), nil
	}
	return 0, malformed(k.typ, data, binaryForm)
}

func (int32Kind) put(dst []byte, v int32, exact bool) []byte {
	if exact {
		return binary.BigEndian.AppendUint64(dst, uint64(v))
	}
	return binary.BigEndian.AppendUint32(dst, uint32(v))
}

func (k int32Kind) canon(dst, data []byte, f form, exact bool) ([]byte, error) {
	var v int32
	var err error
	if f == textForm {
		v, err = k.text(data)
	} else {
		v, err = k.bin(data)
	}
	if err != nil {
		return dst, err
	}
	return k.put(dst, v, exact), nil
}

func (k int32Kind) canonArrow(dst []byte, arr arrow.Array, i int, exact bool) ([]byte, error) {
	a, ok := arr.(*array.Int32)
	if !ok {
		return dst, errArray(k, arr)
	}
	return k.put(dst, a.Value(i), exact), nil
}

func (k int32Kind) bind(b array.Builder) Appender {
	bb, ok := b.(*array.Int32Builder)
	if !ok {
		panic(badBuilder(k, b))
	}
	return &int32Appender{k: k, b: bb}
}

type int32Appender struct {
	unlimited
	k int32Kind
	b *array.Int32Builder
}

func (a *int32Appender) Text(data []byte) error {
	v, err := a.k.text(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *int32Appender) Binary(data []byte) error {
	v, err := a.k.bin(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *int32Appender) Null()          { a.b.AppendNull() }
func (a *int32Appender) canon(b []byte) { a.b.Append(int32(binary.BigEndian.Uint64(b))) }

func (a *int32Appender) From(arr arrow.Array, i int) error {
	v, ok := arr.(*array.Int32)
	switch {
	case !ok:
		return errArray(a.k, arr)
	case v.IsNull(i):
		a.b.AppendNull()
	default:
		a.b.Append(v.Value(i))
	}
	return nil
}

// int64Kind is int8: long.
type int64Kind struct{}

func (int64Kind) name() string          { return "int8" }
func (int64Kind) iceberg() iceberg.Type { return iceberg.PrimitiveTypes.Int64 }
func (int64Kind) arrow() arrow.DataType { return arrow.PrimitiveTypes.Int64 }
func (int64Kind) binary() bool          { return true }
func (int64Kind) fixed() int            { return 8 }

func (int64Kind) text(data []byte) (int64, error) {
	v, ok := parseInt(data)
	if !ok {
		return 0, malformed("int8", data, textForm)
	}
	return v, nil
}

func (int64Kind) bin(data []byte) (int64, error) {
	if len(data) != 8 {
		return 0, malformed("int8", data, binaryForm)
	}
	return int64(binary.BigEndian.Uint64(data)), nil
}

func (k int64Kind) arrowValue(arr arrow.Array, i int) (int64, error) {
	switch a := arr.(type) {
	case *array.Int64:
		return a.Value(i), nil
	case *array.Int32:
		return int64(a.Value(i)), nil
	}
	return 0, errArray(k, arr)
}

func (k int64Kind) canon(dst, data []byte, f form, _ bool) ([]byte, error) {
	var v int64
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

func (k int64Kind) canonArrow(dst []byte, arr arrow.Array, i int, _ bool) ([]byte, error) {
	v, err := k.arrowValue(arr, i)
	if err != nil {
		return dst, err
	}
	return binary.BigEndian.AppendUint64(dst, uint64(v)), nil
}

func (k int64Kind) bind(b array.Builder) Appender {
	bb, ok := b.(*array.Int64Builder)
	if !ok {
		panic(badBuilder(k, b))
	}
	return &int64Appender{b: bb}
}

type int64Appender struct {
	unlimited
	b *array.Int64Builder
}

func (a *int64Appender) Text(data []byte) error {
	v, err := int64Kind{}.text(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *int64Appender) Binary(data []byte) error {
	v, err := int64Kind{}.bin(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *int64Appender) Null()          { a.b.AppendNull() }
func (a *int64Appender) canon(b []byte) { a.b.Append(int64(binary.BigEndian.Uint64(b))) }

func (a *int64Appender) From(arr arrow.Array, i int) error {
	if arr.IsNull(i) {
		a.b.AppendNull()
		return nil
	}
	v, err := int64Kind{}.arrowValue(arr, i)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

// parseInt reads a decimal int64 as Postgres prints it: an optional minus and
// digits, nothing else.
func parseInt(data []byte) (int64, bool) {
	neg := len(data) > 0 && data[0] == '-'
	if neg {
		data = data[1:]
	}
	if len(data) == 0 || len(data) > 19 {
		return 0, false
	}
	var v uint64 // 19 digits fit
	for _, c := range data {
		c -= '0'
		if c > 9 {
			return 0, false
		}
		v = v*10 + uint64(c)
	}
	if neg {
		return -int64(v), v <= math.MaxInt64+1
	}
	return int64(v), v <= math.MaxInt64
}

package column

import (
	"encoding/binary"
	"math"
	"strconv"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
)

// The one NaN the lake has: the text form carries no payload, so the binary
// form's is dropped.
var nan64 = math.Float64frombits(0x7ff8000000000000)

func bits64(v float64, exact bool) uint64 {
	if v != v {
		v = nan64
	}
	if v == 0 && !exact {
		v = 0
	}
	return math.Float64bits(v)
}

// parseFloat reads what float4out and float8out print.
func parseFloat(data []byte, bits int) (float64, bool) {
	if len(data) == 0 {
		return 0, false
	}
	switch data[len(data)-1] {
	case 'N':
		return nan64, string(data) == "NaN"
	case 'y':
		switch string(data) {
		case "Infinity":
			return math.Inf(1), true
		case "-Infinity":
			return math.Inf(-1), true
		}
		return 0, false
	}
	for _, c := range data {
		// strconv would also take hexadecimal and names in any case.
		if c-'0' > 9 && c != '.' && c != '-' && c != '+' && c != 'e' {
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(data), len(data)), bits)
	return v, err == nil
}

// float32Kind is float4: float.
type float32Kind struct{}

func (float32Kind) name() string          { return "float4" }
func (float32Kind) iceberg() iceberg.Type { return iceberg.PrimitiveTypes.Float32 }
func (float32Kind) arrow() arrow.DataType { return arrow.PrimitiveTypes.Float32 }
func (float32Kind) binary() bool          { return true }
func (float32Kind) fixed() int            { return 4 }

func (float32Kind) text(data []byte) (float32, error) {
	v, ok := parseFloat(data, 32)
	if !ok {
		return 0, malformed("float4", data, textForm)
	}
	return float32(v), nil
}

func (float32Kind) bin(data []byte) (float32, error) {
	if len(data) != 4 {
		return 0, malformed("float4", data, binaryForm)
	}
	v := math.Float32frombits(binary.BigEndian.Uint32(data))
	if v != v {
		v = float32(nan64)
	}
	return v, nil
}

func (float32Kind) put(dst []byte, v float32, exact bool) []byte {
	b := bits64(float64(v), exact)
	if exact {
		return binary.BigEndian.AppendUint64(dst, b)
	}
	return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(math.Float64frombits(b))))
}

func (k float32Kind) canon(dst, data []byte, f form, exact bool) ([]byte, error) {
	var v float32
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

func (k float32Kind) canonArrow(dst []byte, arr arrow.Array, i int, exact bool) ([]byte, error) {
	a, ok := arr.(*array.Float32)
	if !ok {
		return dst, errArray(k, arr)
	}
	return k.put(dst, a.Value(i), exact), nil
}

func (k float32Kind) bind(b array.Builder) Appender {
	bb, ok := b.(*array.Float32Builder)
	if !ok {
		panic(badBuilder(k, b))
	}
	return &float32Appender{b: bb}
}

type float32Appender struct {
	unlimited
	b *array.Float32Builder
}

func (a *float32Appender) Text(data []byte) error {
	v, err := float32Kind{}.text(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *float32Appender) Binary(data []byte) error {
	v, err := float32Kind{}.bin(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *float32Appender) Null() { a.b.AppendNull() }
func (a *float32Appender) canon(b []byte) {
	a.b.Append(float32(math.Float64frombits(binary.BigEndian.Uint64(b))))
}

func (a *float32Appender) From(arr arrow.Array, i int) error {
	v, ok := arr.(*array.Float32)
	switch {
	case !ok:
		return errArray(float32Kind{}, arr)
	case v.IsNull(i):
		a.b.AppendNull()
	default:
		a.b.Append(v.Value(i))
	}
	return nil
}

// float64Kind is float8: double.
type float64Kind struct{}

func (float64Kind) name() string          { return "float8" }
func (float64Kind) iceberg() iceberg.Type { return iceberg.PrimitiveTypes.Float64 }
func (float64Kind) arrow() arrow.DataType { return arrow.PrimitiveTypes.Float64 }
func (float64Kind) binary() bool          { return true }
func (float64Kind) fixed() int            { return 8 }

func (float64Kind) text(data []byte) (float64, error) {
	v, ok := parseFloat(data, 64)
	if !ok {
		return 0, malformed("float8", data, textForm)
	}
	return v, nil
}

func (float64Kind) bin(data []byte) (float64, error) {
	if len(data) != 8 {
		return 0, malformed("float8", data, binaryForm)
	}
	return math.Float64frombits(bits64(math.Float64frombits(binary.BigEndian.Uint64(data)), true)), nil
}

func (k float64Kind) arrowValue(arr arrow.Array, i int) (float64, error) {
	switch a := arr.(type) {
	case *array.Float64:
		return a.Value(i), nil
	case *array.Float32:
		return float64(a.Value(i)), nil
	}
	return 0, errArray(k, arr)
}

func (k float64Kind) canon(dst, data []byte, f form, exact bool) ([]byte, error) {
	var v float64
	var err error
	if f == textForm {
		v, err = k.text(data)
	} else {
		v, err = k.bin(data)
	}
	if err != nil {
		return dst, err
	}
	return binary.BigEndian.AppendUint64(dst, bits64(v, exact)), nil
}

func (k float64Kind) canonArrow(dst []byte, arr arrow.Array, i int, exact bool) ([]byte, error) {
	v, err := k.arrowValue(arr, i)
	if err != nil {
		return dst, err
	}
	return binary.BigEndian.AppendUint64(dst, bits64(v, exact)), nil
}

func (k float64Kind) bind(b array.Builder) Appender {
	bb, ok := b.(*array.Float64Builder)
	if !ok {
		panic(badBuilder(k, b))
	}
	return &float64Appender{b: bb}
}

type float64Appender struct {
	unlimited
	b *array.Float64Builder
}

func (a *float64Appender) Text(data []byte) error {
	v, err := float64Kind{}.text(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *float64Appender) Binary(data []byte) error {
	v, err := float64Kind{}.bin(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *float64Appender) Null() { a.b.AppendNull() }
func (a *float64Appender) canon(b []byte) {
	a.b.Append(math.Float64frombits(binary.BigEndian.Uint64(b)))
}

func (a *float64Appender) From(arr arrow.Array, i int) error {
	if arr.IsNull(i) {
		a.b.AppendNull()
		return nil
	}
	v, err := float64Kind{}.arrowValue(arr, i)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

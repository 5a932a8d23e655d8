package column

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/iceberg-go"
)

// uuidKind is uuid: uuid, sixteen bytes.
type uuidKind struct{}

func (uuidKind) name() string          { return "uuid" }
func (uuidKind) iceberg() iceberg.Type { return iceberg.PrimitiveTypes.UUID }
func (uuidKind) arrow() arrow.DataType { return uuidType }
func (uuidKind) binary() bool          { return true }
func (uuidKind) fixed() int            { return 16 }

var uuidType = extensions.NewUUIDType()

// unhex is the value of a hexadecimal digit, 0xff of anything else.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range 10 {
		t['0'+i] = byte(i)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = byte(10+i), byte(10+i)
	}
	return t
}()

// uuidOffsets are the places of the sixteen bytes in the text form.
var uuidOffsets = [16]int{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34}

// appendUUID reads 00112233-4455-6677-8899-aabbccddeeff.
func appendUUID(dst, data []byte) ([]byte, bool) {
	if len(data) != 36 || data[8] != '-' || data[13] != '-' || data[18] != '-' || data[23] != '-' {
		return dst, false
	}
	var bad byte
	for _, i := range uuidOffsets {
		hi, lo := unhex[data[i]], unhex[data[i+1]]
		bad |= hi | lo
		dst = append(dst, hi<<4|lo)
	}
	return dst, bad <= 0x0f
}

func (k uuidKind) canon(dst, data []byte, f form, _ bool) ([]byte, error) {
	if f == textForm {
		if out, ok := appendUUID(dst, data); ok {
			return out, nil
		}
	} else if len(data) == 16 {
		return append(dst, data...), nil
	}
	return dst, malformed("uuid", data, f)
}

func (k uuidKind) arrowValue(arr arrow.Array, i int) ([]byte, error) {
	if e, ok := arr.(array.ExtensionArray); ok {
		arr = e.Storage()
	}
	if a, ok := arr.(*array.FixedSizeBinary); ok {
		if v := a.Value(i); len(v) == 16 {
			return v, nil
		}
	}
	return nil, errArray(k, arr)
}

func (k uuidKind) canonArrow(dst []byte, arr arrow.Array, i int, _ bool) ([]byte, error) {
	v, err := k.arrowValue(arr, i)
	if err != nil {
		return dst, err
	}
	return append(dst, v...), nil
}

func (k uuidKind) bind(b array.Builder) Appender {
	storage := b
	switch e := b.(type) {
	case *extensions.UUIDBuilder:
		storage = e.ExtensionBuilder.Builder
	case *array.ExtensionBuilder:
		storage = e.Builder
	}
	bb, ok := storage.(*array.FixedSizeBinaryBuilder)
	if !ok || bb.Type().(*arrow.FixedSizeBinaryType).ByteWidth != 16 {
		panic(badBuilder(k, b))
	}
	return &uuidAppender{b: bb, scratch: make([]byte, 0, 18)}
}

type uuidAppender struct {
	unlimited
	b       *array.FixedSizeBinaryBuilder
	scratch []byte
}

func (a *uuidAppender) Text(data []byte) error {
	v, ok := appendUUID(a.scratch, data)
	if !ok {
		return malformed("uuid", data, textForm)
	}
	a.b.Append(v)
	return nil
}

func (a *uuidAppender) Binary(data []byte) error {
	if len(data) != 16 {
		return malformed("uuid", data, binaryForm)
	}
	a.b.Append(data)
	return nil
}

func (a *uuidAppender) Null()          { a.b.AppendNull() }
func (a *uuidAppender) canon(b []byte) { a.b.Append(b) }

func (a *uuidAppender) From(arr arrow.Array, i int) error {
	if arr.IsNull(i) {
		a.b.AppendNull()
		return nil
	}
	v, err := uuidKind{}.arrowValue(arr, i)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

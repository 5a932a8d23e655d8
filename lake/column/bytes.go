package column

import (
	"math"
	"unicode/utf8"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
)

// convert appends the lake's bytes of a wire value to dst. false: malformed.
type convert func(dst, data []byte) ([]byte, bool)

// bytesKind is every type whose lake value is a string or binary: the text
// family as it is, the rest through a conversion.
type bytesKind struct {
	typ        string
	ice        iceberg.Type
	arr        arrow.DataType
	bin        bool    // the binary form is read
	versioned  bool    // the binary form starts with a version byte 1
	fromText   convert // nil: the bytes as they are
	fromBinary convert
}

func (k *bytesKind) name() string          { return k.typ }
func (k *bytesKind) iceberg() iceberg.Type { return k.ice }
func (k *bytesKind) arrow() arrow.DataType { return k.arr }
func (k *bytesKind) binary() bool          { return k.bin }
func (k *bytesKind) fixed() int            { return 0 }

// value gives the lake's bytes: a part of data, or made in scratch, which is
// returned grown.
func (k *bytesKind) value(scratch, data []byte, f form) (v, grown []byte, err error) {
	conv := k.fromText
	v = data
	if f == binaryForm {
		conv = k.fromBinary
		if k.versioned {
			if len(data) == 0 || data[0] != 1 {
				return nil, scratch, malformed(k.typ, data, f)
			}
			v = data[1:]
		}
	}
	if conv != nil {
		grown, ok := conv(scratch, data)
		if !ok {
			return nil, scratch, malformed(k.typ, data, f)
		}
		return grown[len(scratch):], grown, nil
	}
	// A SQL_ASCII database may hold any bytes in a text; Iceberg's string is
	// UTF-8, and readers fail on others.
	if k.arr.ID() == arrow.STRING && !utf8.Valid(v) {
		return nil, scratch, unrepresentable(k.typ, []byte(quote(v)), "it is not valid UTF-8")
	}
	return v, scratch, nil
}

func (k *bytesKind) canon(dst, data []byte, f form, _ bool) ([]byte, error) {
	v, grown, err := k.value(dst, data, f)
	if err != nil {
		return dst, err
	}
	if len(grown) > len(dst) {
		return grown, nil
	}
	return append(dst, v...), nil
}

func (k *bytesKind) canonArrow(dst []byte, arr arrow.Array, i int, _ bool) ([]byte, error) {
	v, ok := arrowBytes(arr, i)
	if !ok {
		return dst, errArray(k, arr)
	}
	return append(dst, v...), nil
}

// arrowBytes is the value i of an array of strings or binaries, in the array's
// own memory.
func arrowBytes(arr arrow.Array, i int) ([]byte, bool) {
	var s string
	switch a := arr.(type) {
	case *array.String:
		s = a.Value(i)
	case *array.LargeString:
		s = a.Value(i)
	case *array.Binary:
		return a.Value(i), true
	case *array.LargeBinary:
		return a.Value(i), true
	default:
		return nil, false
	}
	return unsafe.Slice(unsafe.StringData(s), len(s)), true
}

func (k *bytesKind) bind(b array.Builder) Appender {
	switch b := b.(type) {
	case *array.StringBuilder:
		if k.arr.ID() == arrow.STRING {
			return &bytesAppender{k: k, b: b.BinaryBuilder}
		}
	case *array.BinaryBuilder:
		if b.Type().ID() == k.arr.ID() {
			return &bytesAppender{k: k, b: b}
		}
	}
	panic(badBuilder(k, b))
}

// scratchMax is what an appender keeps of its scratch space between values, in
// bytes: one huge value shall not hold its memory for ever.
const scratchMax = 1 << 20

// bytesSink is an *array.BinaryBuilder or a *Strings.
type bytesSink interface {
	Append(v []byte)
	AppendNull()
	DataLen() int
}

type bytesAppender struct {
	k       *bytesKind
	b       bytesSink
	scratch []byte
}

func (a *bytesAppender) add(data []byte, f form) error {
	v, grown, err := a.k.value(a.scratch[:0], data, f)
	if err != nil {
		return err
	}
	if cap(grown) <= scratchMax {
		a.scratch = grown
	}
	if !a.room(len(v)) {
		return errFull(a.k.typ)
	}
	a.b.Append(v)
	return nil
}

func (a *bytesAppender) Text(data []byte) error   { return a.add(data, textForm) }
func (a *bytesAppender) Binary(data []byte) error { return a.add(data, binaryForm) }
func (a *bytesAppender) Null()                    { a.b.AppendNull() }
func (a *bytesAppender) canon(b []byte)           { a.b.Append(b) }
func (a *bytesAppender) room(n int) bool          { return a.b.DataLen()+n <= math.MaxInt32 }

func (a *bytesAppender) From(arr arrow.Array, i int) error {
	if arr.IsNull(i) {
		a.b.AppendNull()
		return nil
	}
	v, ok := arrowBytes(arr, i)
	if !ok {
		return errArray(a.k, arr)
	}
	if !a.room(len(v)) {
		return errFull(a.k.typ)
	}
	a.b.Append(v)
	return nil
}

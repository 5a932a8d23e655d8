package column

import (
	"bytes"
	"encoding/binary"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
)

// listKind is an array of one dimension whose first element is number 1:
// list<T>. Postgres fixes neither for a column, so each value is checked.
//
// Its canonical bytes are, for each element, 0 for a NULL, or 1, the length
// (four bytes) and the element's canonical bytes. A value is appended from
// these, so that nothing has been appended when its last element is found bad;
// an Arrow list builder can't be taken back.
type listKind struct {
	elem kind
	arr  *arrow.ListType
	ice  *iceberg.ListType
}

func newList(elem kind) *listKind {
	return &listKind{
		elem: elem,
		arr:  arrow.ListOfField(arrow.Field{Name: "element", Type: elem.arrow(), Nullable: true}),
		ice:  &iceberg.ListType{Element: elem.iceberg()},
	}
}

func (k *listKind) name() string          { return k.elem.name() + "[]" }
func (k *listKind) arrow() arrow.DataType { return k.arr }
func (k *listKind) binary() bool          { return k.elem.binary() }
func (k *listKind) fixed() int            { return 0 }

// iceberg returns a copy: the caller assigns the element's id.
func (k *listKind) iceberg() iceberg.Type {
	t := *k.ice
	return &t
}

const (
	whyDimensions = "a list has one dimension"
	whyLowerBound = "a list has no lower bound other than 1"

	// elemHeader is the bytes before a present element's own.
	elemHeader = 5
)

func (k *listKind) canon(dst, data []byte, f form, exact bool) ([]byte, error) {
	start := len(dst)
	var err error
	if f == textForm {
		dst, err = k.canonText(dst, data, exact)
	} else {
		dst, err = k.canonBinary(dst, data, exact)
	}
	if err != nil {
		return dst[:start], err
	}
	return dst, nil
}

// endElem writes the header of the element whose bytes begin at start.
func endElem(dst []byte, start int) []byte {
	dst[start-elemHeader] = 1
	binary.BigEndian.PutUint32(dst[start-4:], uint32(len(dst)-start))
	return dst
}

// canonText reads array_out's text: {a,"b \"quoted\"",NULL}.
func (k *listKind) canonText(dst, data []byte, exact bool) ([]byte, error) {
	if len(data) > 0 && data[0] == '[' {
		if bytes.IndexByte(data, ']') > 0 && bytes.HasPrefix(data[bytes.IndexByte(data, ']'):], []byte("][")) {
			return dst, unrepresentable(k.name(), data, whyDimensions)
		}
		return dst, unrepresentable(k.name(), data, whyLowerBound)
	}
	if len(data) < 2 || data[0] != '{' || data[len(data)-1] != '}' {
		return dst, malformed(k.name(), data, textForm)
	}
	if data[1] == '{' {
		return dst, unrepresentable(k.name(), data, whyDimensions)
	}
	rest := data[1:]
	if len(rest) == 1 {
		return dst, nil
	}
	for {
		var err error
		if rest[0] == '"' {
			var ok bool
			start := len(dst) + elemHeader
			dst = append(dst, 0, 0, 0, 0, 0)
			// The element's text goes where its canonical bytes will be.
			if dst, rest, ok = unquote(dst, rest[1:]); !ok {
				return dst, malformed(k.name(), data, textForm)
			}
			end := len(dst)
			if dst, err = k.elem.canon(dst, dst[start:end], textForm, exact); err != nil {
				return dst, err
			}
			n := copy(dst[start:], dst[end:])
			dst = endElem(dst[:start+n], start)
		} else {
			n := 0
			for n < len(rest) && rest[n] != ',' && rest[n] != '}' {
				if c := rest[n]; c == '"' || c == '\\' || c == '{' {
					return dst, malformed(k.name(), data, textForm)
				}
				n++
			}
			word := rest[:n]
			rest = rest[n:]
			switch {
			case n == 0:
				return dst, malformed(k.name(), data, textForm)
			case string(word) == "NULL":
				dst = append(dst, 0)
			default:
				start := len(dst) + elemHeader
				if dst, err = k.elem.canon(append(dst, 0, 0, 0, 0, 0), word, textForm, exact); err != nil {
					return dst, err
				}
				dst = endElem(dst, start)
			}
		}
		if len(rest) == 1 && rest[0] == '}' {
			return dst, nil
		}
		// Something must follow the comma, if only the last brace.
		if len(rest) < 2 || rest[0] != ',' {
			return dst, malformed(k.name(), data, textForm)
		}
		rest = rest[1:]
	}
}

// unquote appends the text of a quoted element, its first quote taken off, and
// returns what follows the last.
func unquote(dst, data []byte) (out, rest []byte, ok bool) {
	for {
		n := 0
		for n < len(data) && data[n] != '"' && data[n] != '\\' {
			n++
		}
		dst = append(dst, data[:n]...)
		if n == len(data) {
			return dst, nil, false
		}
		if data[n] == '"' {
			return dst, data[n+1:], true
		}
		if n+1 == len(data) {
			return dst, nil, false
		}
		dst = append(dst, data[n+1])
		data = data[n+2:]
	}
}

// canonBinary reads array_send's form: dimensions, a flag for NULLs, the
// element type's OID, length and lower bound of each dimension, then each
// element with its length, -1 for a NULL.
func (k *listKind) canonBinary(dst, data []byte, exact bool) ([]byte, error) {
	if len(data) < 12 {
		return dst, malformed(k.name(), data, binaryForm)
	}
	dims := int32(binary.BigEndian.Uint32(data))
	rest := data[12:]
	switch {
	case dims == 0 && len(rest) == 0:
		return dst, nil
	case dims > 1 && dims <= 6: // Postgres' MAXDIM
		return dst, unrepresentable(k.name(), []byte("{{…}}"), whyDimensions)
	case dims != 1 || len(rest) < 8:
		return dst, malformed(k.name(), data, binaryForm)
	}
	count := int32(binary.BigEndian.Uint32(rest))
	bound := int32(binary.BigEndian.Uint32(rest[4:]))
	rest = rest[8:]
	if count < 0 || int64(count)*4 > int64(len(rest)) {
		return dst, malformed(k.name(), data, binaryForm)
	}
	if bound != 1 {
		return dst, unrepresentable(k.name(), []byte("[n:m]={…}"), whyLowerBound)
	}
	for range count {
		if len(rest) < 4 {
			return dst, malformed(k.name(), data, binaryForm)
		}
		n := int64(int32(binary.BigEndian.Uint32(rest)))
		rest = rest[4:]
		if n == -1 {
			dst = append(dst, 0)
			continue
		}
		if n < 0 || n > int64(len(rest)) {
			return dst, malformed(k.name(), data, binaryForm)
		}
		start := len(dst) + elemHeader
		var err error
		if dst, err = k.elem.canon(append(dst, 0, 0, 0, 0, 0), rest[:n], binaryForm, exact); err != nil {
			return dst, err
		}
		dst = endElem(dst, start)
		rest = rest[n:]
	}
	if len(rest) != 0 {
		return dst, malformed(k.name(), data, binaryForm)
	}
	return dst, nil
}

func (k *listKind) canonArrow(dst []byte, arr arrow.Array, i int, exact bool) ([]byte, error) {
	a, ok := arr.(array.ListLike)
	if !ok {
		return dst, errArray(k, arr)
	}
	values := a.ListValues()
	from, to := a.ValueOffsets(i)
	begin := len(dst)
	for j := int(from); j < int(to); j++ {
		if values.IsNull(j) {
			dst = append(dst, 0)
			continue
		}
		start := len(dst) + elemHeader
		var err error
		if dst, err = k.elem.canonArrow(append(dst, 0, 0, 0, 0, 0), values, j, exact); err != nil {
			return dst[:begin], err
		}
		dst = endElem(dst, start)
	}
	return dst, nil
}

func (k *listKind) bind(b array.Builder) Appender {
	bb, ok := b.(*array.ListBuilder)
	if !ok {
		panic(badBuilder(k, b))
	}
	return &listAppender{k: k, b: bb, elem: k.elem.bind(bb.ValueBuilder())}
}

type listAppender struct {
	k       *listKind
	b       *array.ListBuilder
	elem    Appender
	scratch []byte
}

func (a *listAppender) add(v []byte, err error) error {
	if err != nil {
		return err
	}
	if cap(v) <= scratchMax {
		a.scratch = v
	}
	if !a.room(len(v)) {
		return errFull(a.k.name())
	}
	a.canon(v)
	return nil
}

func (a *listAppender) Text(data []byte) error {
	return a.add(a.k.canon(a.scratch[:0], data, textForm, true))
}

func (a *listAppender) Binary(data []byte) error {
	return a.add(a.k.canon(a.scratch[:0], data, binaryForm, true))
}

func (a *listAppender) Null()           { a.b.AppendNull() }
func (a *listAppender) room(n int) bool { return a.elem.room(n) }

func (a *listAppender) canon(v []byte) {
	a.b.Append(true)
	for len(v) > 0 {
		if v[0] == 0 {
			a.elem.Null()
			v = v[1:]
			continue
		}
		n := int(binary.BigEndian.Uint32(v[1:]))
		a.elem.canon(v[elemHeader : elemHeader+n])
		v = v[elemHeader+n:]
	}
}

func (a *listAppender) From(arr arrow.Array, i int) error {
	if arr.IsNull(i) {
		a.b.AppendNull()
		return nil
	}
	return a.add(a.k.canonArrow(a.scratch[:0], arr, i, true))
}

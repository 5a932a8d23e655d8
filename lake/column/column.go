// Package column turns Postgres values into Arrow ones: one codec per Postgres
// type, bytes in, values out, no I/O.
//
// A codec takes both wire forms, the text form of the replication stream and
// the binary form of COPY, and gives the same lake value for both. The session
// must have DateStyle=ISO, IntervalStyle=postgres, TimeZone=UTC,
// extra_float_digits=3, bytea_output=hex and client_encoding=UTF8.
//
// Where Iceberg has a type for what Postgres holds, that is used; everything
// else is Postgres' own text form in a string. What the Iceberg type can't hold
// (a NaN in a decimal, an infinite date, an array of two dimensions) is an
// *Unrepresentable error, never a changed value.
//
// Every value also has canonical bytes, equal for equal lake values whichever
// side they come from: the stream, a COPY, or a file of the lake read back.
// Row index keys (Key) and row hashes (RowHash) are made of them.
package column

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
)

// Codec is one column's translation. It is immutable and may be used from any
// goroutine; the zero Codec is invalid.
type Codec struct{ k kind }

// form is a wire form of Postgres.
type form byte

const (
	textForm form = iota
	binaryForm
)

// kind is one family of types behind a Codec. canon and canonArrow append the
// value's canonical bytes. exact keeps apart what Postgres holds equal but
// stores differently (-0 and 0), and has ints, floats and decimals in their
// widest form, so that it survives a promotion of the column's type.
type kind interface {
	name() string
	iceberg() iceberg.Type
	arrow() arrow.DataType
	binary() bool
	fixed() int
	bind(b array.Builder) Appender
	canon(dst, data []byte, f form, exact bool) ([]byte, error)
	canonArrow(dst []byte, arr arrow.Array, i int, exact bool) ([]byte, error)
}

// Appender appends one column's values to the builder it was bound to. It has
// scratch space of its own: one goroutine at a time may use it. Its methods
// allocate nothing per value, besides the builder's own growth.
//
// When a method returns an error, nothing has been appended. Such an error is
// an *Unrepresentable, ErrMalformed or ErrFull.
type Appender interface {
	// Text appends a value in Postgres' text form. data is only read.
	Text(data []byte) error
	// Binary appends a value in Postgres' binary form, or in text form where
	// Codec.Binary is false. data is only read.
	Binary(data []byte) error
	// Null appends a NULL.
	Null()
	// From appends arr's value i, NULL or not. arr has the codec's Arrow type,
	// or one that Iceberg's type promotion allows before it (int for long,
	// float for double, a decimal of smaller precision).
	From(arr arrow.Array, i int) error

	// canon appends the value of exact canonical bytes.
	canon(b []byte)
	// room says whether the builder can take n bytes of variable-length data.
	room(n int) bool
}

// Type is the Postgres type's name, for messages: numeric(10,2), int4[].
func (c Codec) Type() string { return c.k.name() }

// Iceberg is the column's Iceberg type. A list's element id is 0, to be
// assigned with the schema's other ids; its elements are optional.
func (c Codec) Iceberg() iceberg.Type { return c.k.iceberg() }

// Arrow is the Arrow type that iceberg-go gives for Iceberg(), without field
// metadata.
func (c Codec) Arrow() arrow.DataType { return c.k.arrow() }

// Binary says whether the codec reads the type's binary form. Where it is
// false, a binary COPY must select the column as wal.TextExpr.
func (c Codec) Binary() bool { return c.k.binary() }

// FixedKey is the number of key bytes every value has, 0 if it varies.
func (c Codec) FixedKey() int { return c.k.fixed() }

// Bind captures a builder made for Arrow(). It panics if b is of another type:
// the schema and the codecs of one table come from the same place.
func (c Codec) Bind(b array.Builder) Appender { return c.k.bind(b) }

// KeyText appends to dst the key bytes of a value in text form: -0 and 0 are
// the same, as Postgres compares them.
func (c Codec) KeyText(dst, data []byte) ([]byte, error) {
	return c.k.canon(dst, data, textForm, false)
}

// KeyBinary appends to dst the key bytes of a value in binary form (text form
// where Binary is false).
func (c Codec) KeyBinary(dst, data []byte) ([]byte, error) {
	return c.k.canon(dst, data, binaryForm, false)
}

// KeyArrow appends to dst the key bytes of arr's value i, which must not be
// NULL. arr is as for Appender.From.
func (c Codec) KeyArrow(dst []byte, arr arrow.Array, i int) ([]byte, error) {
	return canonArrow(c.k, dst, arr, i, false)
}

func canonArrow(k kind, dst []byte, arr arrow.Array, i int, exact bool) ([]byte, error) {
	if arr.IsNull(i) {
		return dst, errNull(k)
	}
	return k.canonArrow(dst, arr, i, exact)
}

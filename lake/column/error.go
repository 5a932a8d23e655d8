package column

import (
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

var (
	// ErrUnrepresentable is what every *Unrepresentable is.
	ErrUnrepresentable = errors.New("value has no form in the lake")
	// ErrMalformed is bytes that are no value of the type: a broken message,
	// or a session whose settings are not the ones the codecs need.
	ErrMalformed = errors.New("malformed value")
	// ErrFull is a builder that can't take the value within Arrow's 2 GB of
	// variable-length data: cut a record batch and append again.
	ErrFull = errors.New("record batch full")
)

// Unrepresentable is a value that Postgres holds and the column's Iceberg type
// can't.
type Unrepresentable struct {
	Type  string // Postgres type: numeric(10,2)
	Value string // Postgres' text form, its beginning where it is long
	Why   string
}

func (e *Unrepresentable) Error() string {
	return fmt.Sprintf("%s value %s has no form in the lake: %s", e.Type, e.Value, e.Why)
}

// Is makes errors.Is(err, ErrUnrepresentable) true.
func (e *Unrepresentable) Is(target error) bool { return target == ErrUnrepresentable }

// clipLen bounds what an error quotes of a value, in bytes.
const clipLen = 200

func clip(b []byte) string {
	if len(b) > clipLen {
		return string(b[:clipLen]) + "…"
	}
	return string(b)
}

func unrepresentable(typ string, value []byte, why string) error {
	return &Unrepresentable{Type: typ, Value: clip(value), Why: why}
}

func malformed(typ string, data []byte, f form) error {
	if f == textForm {
		return fmt.Errorf("decode %s %q: %w", typ, clip(data), ErrMalformed)
	}
	return fmt.Errorf("decode binary %s %q: %w", typ, clip(data), ErrMalformed)
}

func errFull(typ string) error { return fmt.Errorf("append %s: %w", typ, ErrFull) }

func errNull(k kind) error { return fmt.Errorf("make key of %s: value is NULL", k.name()) }

func errArray(k kind, arr arrow.Array) error {
	return fmt.Errorf("read %s from Arrow array: have %s, want %s", k.name(), arr.DataType(), k.arrow())
}

func badBuilder(k kind, b array.Builder) string {
	return fmt.Sprintf("column: bind %s to a builder of %s, want %s", k.name(), b.Type(), k.arrow())
}

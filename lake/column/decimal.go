package column

import (
	"encoding/binary"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/iceberg-go"
)

// narrowPrecision is the largest precision whose values fit eight bytes, and
// so an exact index key.
const narrowPrecision = 18

// u128 is an unsigned 128-bit integer; decimals stay below 10³⁸ < 2¹²⁷.
type u128 struct{ hi, lo uint64 }

var pow10 = func() (t [39]u128) {
	t[0].lo = 1
	for i := 1; i < len(t); i++ {
		t[i], _ = t[i-1].mulAdd(10, 0)
	}
	return t
}()

// mulAdd is v·m + a; false when it needs more than 128 bits.
func (v u128) mulAdd(m, a uint64) (u128, bool) {
	over, hi := bits.Mul64(v.hi, m)
	carry, lo := bits.Mul64(v.lo, m)
	lo, c := bits.Add64(lo, a, 0)
	hi, c = bits.Add64(hi, carry, c)
	return u128{hi, lo}, over == 0 && c == 0
}

func (v u128) less(w u128) bool { return v.hi < w.hi || v.hi == w.hi && v.lo < w.lo }

func (v u128) signed(neg bool) decimal128.Num {
	if neg {
		lo, borrow := bits.Sub64(0, v.lo, 0)
		hi, _ := bits.Sub64(0, v.hi, borrow)
		v = u128{hi, lo}
	}
	return decimal128.New(int64(v.hi), v.lo)
}

// decimalKind is numeric with a typmod of at most 38 digits: decimal(p, s).
type decimalKind struct {
	typ   string
	p, s  int
	limit u128 // 10^p
	arr   *arrow.Decimal128Type
}

func newDecimal(typ string, p, s int) *decimalKind {
	return &decimalKind{typ: typ, p: p, s: s, limit: pow10[p], arr: &arrow.Decimal128Type{Precision: int32(p), Scale: int32(s)}}
}

func (k *decimalKind) name() string          { return k.typ }
func (k *decimalKind) iceberg() iceberg.Type { return iceberg.DecimalTypeOf(k.p, k.s) }
func (k *decimalKind) arrow() arrow.DataType { return k.arr }
func (k *decimalKind) binary() bool          { return true }

func (k *decimalKind) fixed() int {
	if k.p <= narrowPrecision {
		return 8
	}
	return 16
}

const (
	whyNotFinite = "a decimal holds finite numbers only"
	whyTooLarge  = "it has more digits than the decimal"
	whyTooFine   = "it has more digits after the point than the decimal"
)

func (k *decimalKind) text(data []byte) (decimal128.Num, error) {
	rest := data
	neg := len(rest) > 0 && rest[0] == '-'
	if neg {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return decimal128.Num{}, malformed(k.typ, data, textForm)
	}
	var (
		v      u128
		chunk  uint64 // digits not yet in v, below 10^n
		n      int
		places = -1 // digits seen after the point; -1 before it
		some   bool
		fits   = true
		fine   bool
	)
	for _, c := range rest {
		d := c - '0'
		if d > 9 {
			if c == '.' && places < 0 {
				places = 0
				continue
			}
			if s := string(data); s == "NaN" || s == "Infinity" || s == "-Infinity" {
				return decimal128.Num{}, unrepresentable(k.typ, data, whyNotFinite)
			}
			return decimal128.Num{}, malformed(k.typ, data, textForm)
		}
		some = true
		if places >= 0 {
			if places == k.s {
				fine = fine || d != 0
				continue
			}
			places++
		}
		chunk = chunk*10 + uint64(d)
		if n++; n == 19 {
			var ok bool
			v, ok = v.mulAdd(pow10[19].lo, chunk)
			fits = fits && ok
			chunk, n = 0, 0
		}
	}
	if !some {
		return decimal128.Num{}, malformed(k.typ, data, textForm)
	}
	if places < 0 {
		places = 0
	}
	v, ok := v.mulAdd(pow10[n].lo, chunk)
	fits = fits && ok
	v, ok = v.shift(k.s - places)
	if fits && ok && !fine && v.less(k.limit) {
		return v.signed(neg), nil
	}
	if fine {
		return decimal128.Num{}, unrepresentable(k.typ, data, whyTooFine)
	}
	return decimal128.Num{}, unrepresentable(k.typ, data, whyTooLarge)
}

// shift is v·10^n, n in 0..38; false when it needs more than 128 bits.
func (v u128) shift(n int) (u128, bool) {
	ok := true
	if n >= 19 {
		v, ok = v.mulAdd(pow10[19].lo, 0)
		n -= 19
	}
	v, fits := v.mulAdd(pow10[n].lo, 0)
	return v, ok && fits
}

func (k *decimalKind) bin(data []byte) (decimal128.Num, error) {
	n, ok := parseNumeric(data)
	if !ok {
		return decimal128.Num{}, malformed(k.typ, data, binaryForm)
	}
	if s := n.special(); s != "" {
		return decimal128.Num{}, unrepresentable(k.typ, []byte(s), whyNotFinite)
	}
	var v u128
	var why string
	// e is the power of ten of digit i in units of the last place.
	e := 4*n.weight + k.s
	for i := 0; 2*i < len(n.digits); i, e = i+1, e-4 {
		d := uint64(n.digit(i))
		switch {
		case e >= 0:
			if v, ok = v.mulAdd(10000, d); !ok {
				why = whyTooLarge
			}
		case e > -4:
			m := pow10[-e].lo
			if d%m != 0 {
				why = whyTooFine
			}
			if v, ok = v.mulAdd(pow10[4+e].lo, d/m); !ok {
				why = whyTooLarge
			}
		case d != 0:
			why = whyTooFine
		}
		if why != "" {
			return decimal128.Num{}, k.unrepresentableWire(data, why)
		}
	}
	if e += 4; e > 0 && v != (u128{}) {
		if e > 38 {
			ok = false
		} else {
			v, ok = v.shift(e)
		}
	}
	if !ok || !v.less(k.limit) {
		return decimal128.Num{}, k.unrepresentableWire(data, whyTooLarge)
	}
	return v.signed(n.sign == numericNeg), nil
}

func (k *decimalKind) unrepresentableWire(data []byte, why string) error {
	text, _ := appendNumeric(nil, data)
	return unrepresentable(k.typ, text, why)
}

func (k *decimalKind) put(dst []byte, v decimal128.Num, exact bool) []byte {
	if exact || k.p > narrowPrecision {
		dst = binary.BigEndian.AppendUint64(dst, uint64(v.HighBits()))
	}
	return binary.BigEndian.AppendUint64(dst, v.LowBits())
}

func (k *decimalKind) canon(dst, data []byte, f form, exact bool) ([]byte, error) {
	var v decimal128.Num
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

func (k *decimalKind) arrowValue(arr arrow.Array, i int) (decimal128.Num, error) {
	if t, ok := arr.DataType().(arrow.DecimalType); ok && int(t.GetScale()) == k.s && int(t.GetPrecision()) <= k.p {
		switch a := arr.(type) {
		case *array.Decimal128:
			return a.Value(i), nil
		case *array.Decimal64:
			return decimal128.FromI64(int64(a.Value(i))), nil
		case *array.Decimal32:
			return decimal128.FromI64(int64(a.Value(i))), nil
		}
	}
	return decimal128.Num{}, errArray(k, arr)
}

func (k *decimalKind) canonArrow(dst []byte, arr arrow.Array, i int, exact bool) ([]byte, error) {
	v, err := k.arrowValue(arr, i)
	if err != nil {
		return dst, err
	}
	return k.put(dst, v, exact), nil
}

func (k *decimalKind) bind(b array.Builder) Appender {
	bb, ok := b.(*array.Decimal128Builder)
	if !ok || !arrow.TypeEqual(bb.Type(), k.arr) {
		panic(badBuilder(k, b))
	}
	return &decimalAppender{k: k, b: bb}
}

type decimalAppender struct {
	unlimited
	k *decimalKind
	b *array.Decimal128Builder
}

func (a *decimalAppender) Text(data []byte) error {
	v, err := a.k.text(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *decimalAppender) Binary(data []byte) error {
	v, err := a.k.bin(data)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

func (a *decimalAppender) Null() { a.b.AppendNull() }

func (a *decimalAppender) canon(b []byte) {
	a.b.Append(decimal128.New(int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint64(b[8:])))
}

func (a *decimalAppender) From(arr arrow.Array, i int) error {
	if arr.IsNull(i) {
		a.b.AppendNull()
		return nil
	}
	v, err := a.k.arrowValue(arr, i)
	if err != nil {
		return err
	}
	a.b.Append(v)
	return nil
}

package column

import "encoding/binary"

// Signs of numeric's binary form.
const (
	numericPos    = 0x0000
	numericNeg    = 0x4000
	numericNaN    = 0xC000
	numericPosInf = 0xD000
	numericNegInf = 0xF000
)

// numericWire is numeric's binary form: base-10⁴ digits, the first worth
// 10000^weight, and the number of decimal digits to show after the point.
type numericWire struct {
	weight int
	sign   uint16
	dscale int
	digits []byte // two bytes each, big-endian, each below 10000
}

func parseNumeric(data []byte) (n numericWire, ok bool) {
	if len(data) < 8 {
		return n, false
	}
	count := int(int16(binary.BigEndian.Uint16(data)))
	n = numericWire{
		weight: int(int16(binary.BigEndian.Uint16(data[2:]))),
		sign:   binary.BigEndian.Uint16(data[4:]),
		dscale: int(binary.BigEndian.Uint16(data[6:])),
		digits: data[8:],
	}
	if count < 0 || len(n.digits) != 2*count || n.dscale > 0x3fff {
		return n, false
	}
	switch n.sign {
	case numericPos, numericNeg, numericNaN, numericPosInf, numericNegInf:
	default:
		return n, false
	}
	for i := 0; i < len(n.digits); i += 2 {
		if binary.BigEndian.Uint16(n.digits[i:]) > 9999 {
			return n, false
		}
	}
	return n, true
}

// special is the text of NaN and the infinities, else empty.
func (n *numericWire) special() string {
	switch n.sign {
	case numericNaN:
		return "NaN"
	case numericPosInf:
		return "Infinity"
	case numericNegInf:
		return "-Infinity"
	}
	return ""
}

// digit is the base-10⁴ digit i places after the first; zero outside.
func (n *numericWire) digit(i int) uint16 {
	if i < 0 || 2*i >= len(n.digits) {
		return 0
	}
	return binary.BigEndian.Uint16(n.digits[2*i:])
}

// appendNumeric makes numeric_out's text (get_str_from_var in Postgres'
// numeric.c).
func appendNumeric(dst, data []byte) ([]byte, bool) {
	n, ok := parseNumeric(data)
	if !ok {
		return dst, false
	}
	if s := n.special(); s != "" {
		return append(dst, s...), true
	}
	if n.sign == numericNeg {
		dst = append(dst, '-')
	}
	if n.weight < 0 {
		dst = append(dst, '0')
	} else {
		start := len(dst)
		for i := range n.weight + 1 {
			d := n.digit(i)
			if len(dst) > start {
				dst = append(dst, '0'+byte(d/1000), '0'+byte(d/100%10), '0'+byte(d/10%10), '0'+byte(d%10))
				continue
			}
			// No zeros before the number, but the last place always has a digit.
			for _, p := range [...]uint16{1000, 100, 10} {
				if len(dst) > start || d >= p {
					dst = append(dst, '0'+byte(d/p%10))
				}
			}
			dst = append(dst, '0'+byte(d%10))
		}
	}
	if n.dscale == 0 {
		return dst, true
	}
	dst = append(dst, '.')
	end := len(dst) + n.dscale
	for i := n.weight + 1; len(dst) < end; i++ {
		d := n.digit(i)
		dst = append(dst, '0'+byte(d/1000), '0'+byte(d/100%10), '0'+byte(d/10%10), '0'+byte(d%10))
	}
	return dst[:end], true
}

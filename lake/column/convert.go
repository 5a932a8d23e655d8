package column

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

func quote(b []byte) string {
	if len(b) > clipLen {
		b = b[:clipLen]
	}
	return strconv.Quote(string(b))
}

// appendHex reads bytea's text form with bytea_output=hex: \x616263.
func appendHex(dst, data []byte) ([]byte, bool) {
	if len(data) < 2 || data[0] != '\\' || data[1] != 'x' {
		return dst, false
	}
	out, err := hex.AppendDecode(dst, data[2:])
	if err != nil {
		return dst, false
	}
	return out, true
}

const hexDigits = "0123456789abcdef"

// appendCharText reads the text form of "char", one byte. Postgres 16 and later
// print a byte above 127 as \ooo, earlier ones as it is.
func appendCharText(dst, data []byte) ([]byte, bool) {
	if len(data) == 1 {
		return appendChar(dst, data)
	}
	return append(dst, data...), len(data) == 0 ||
		len(data) == 4 && data[0] == '\\' && data[1]-'0' < 4 && data[2]-'0' < 8 && data[3]-'0' < 8
}

// appendChar makes the text form of "char" from its one byte; zero is the
// empty string.
func appendChar(dst, data []byte) ([]byte, bool) {
	if len(data) != 1 {
		return dst, false
	}
	switch c := data[0]; {
	case c == 0:
		return dst, true
	case c < 0x80:
		return append(dst, c), true
	default:
		return append(dst, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7), true
	}
}

// appendBits makes the text form of bit and varbit: 0101.
func appendBits(dst, data []byte) ([]byte, bool) {
	if len(data) < 4 {
		return dst, false
	}
	n := int64(int32(binary.BigEndian.Uint32(data)))
	data = data[4:]
	if n < 0 || int64(len(data)) != (n+7)/8 {
		return dst, false
	}
	for i := range int(n) {
		dst = append(dst, '0'+data[i>>3]>>(7-i&7)&1)
	}
	return dst, true
}

// appendMAC makes the text form of macaddr and macaddr8: 08:00:2b:01:02:03.
func appendMAC(dst, data []byte) ([]byte, bool) {
	if len(data) != 6 && len(data) != 8 {
		return dst, false
	}
	for i, c := range data {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
	}
	return dst, true
}

// appendInet makes the text form of inet and cidr from the binary one: family
// (2 or 3), bits, is_cidr, address length, address. A cidr always shows its
// bits, an inet where they aren't all.
func appendInet(dst, data []byte) ([]byte, bool) {
	if len(data) < 4 || len(data) != 4+int(data[3]) {
		return dst, false
	}
	family, bits, cidr, addr := data[0], data[1], data[2] != 0, data[4:]
	switch {
	case family == 2 && len(addr) == 4 && bits <= 32:
		dst = appendIPv4(dst, addr)
	case family == 3 && len(addr) == 16 && bits <= 128:
		dst = appendIPv6(dst, addr)
	default:
		return dst, false
	}
	if cidr || int(bits) != len(addr)*8 {
		dst = append(dst, '/')
		dst = strconv.AppendUint(dst, uint64(bits), 10)
	}
	return dst, true
}

func appendIPv4(dst, addr []byte) []byte {
	for i, c := range addr[:4] {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = strconv.AppendUint(dst, uint64(c), 10)
	}
	return dst
}

// appendIPv6 prints as Postgres' inet_net_ntop.c does: the first longest run of
// two or more zero words becomes ::, and what looks like an embedded IPv4
// address is printed as one.
func appendIPv6(dst, addr []byte) []byte {
	var words [8]uint16
	for i := range words {
		words[i] = binary.BigEndian.Uint16(addr[2*i:])
	}
	base, length := -1, 0
	for i := 0; i < 8; {
		if words[i] != 0 {
			i++
			continue
		}
		j := i
		for j < 8 && words[j] == 0 {
			j++
		}
		if j-i >= 2 && j-i > length {
			base, length = i, j-i
		}
		i = j
	}
	for i := 0; i < 8; i++ {
		if base >= 0 && i >= base && i < base+length {
			if i == base {
				dst = append(dst, ':')
			}
			continue
		}
		if i > 0 {
			dst = append(dst, ':')
		}
		if i == 6 && base == 0 && (length == 6 || length == 7 && words[7] != 1 || length == 5 && words[5] == 0xffff) {
			return appendIPv4(dst, addr[12:])
		}
		dst = strconv.AppendUint(dst, uint64(words[i]), 16)
	}
	if base >= 0 && base+length == 8 {
		dst = append(dst, ':')
	}
	return dst
}

package column

import (
	"fmt"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"

	"firn/wal"
)

// Options chooses between the forms a type may take in the lake. There is one
// choice of each so far.
type Options struct{}

// OIDs of pg_type.dat; they never change.
const (
	oidBool        = 16
	oidBytea       = 17
	oidChar        = 18 // "char", one byte
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidJSON        = 114
	oidXML         = 142
	oidCIDR        = 650
	oidFloat4      = 700
	oidFloat8      = 701
	oidMacaddr8    = 774
	oidMacaddr     = 829
	oidInet        = 869
	oidBpchar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidBit         = 1560
	oidVarbit      = 1562
	oidNumeric     = 1700
	oidUUID        = 2950
	oidJSONB       = 3802

	oidInt2Vector = 22 // of category A, but with a text form of their own
	oidOIDVector  = 30
)

// maxDomainDepth bounds domains over domains; Postgres sets no limit of its
// own, and a TypeInfo could be cyclic.
const maxDomainDepth = 100

// For gives the codec of a Postgres type. The error is about t itself (a
// domain without its base type), not about a type that is unknown here: that
// becomes Postgres' text form.
func For(t wal.TypeInfo, _ Options) (Codec, error) {
	base, err := undomain(t)
	if err != nil {
		return Codec{}, err
	}
	if k := scalar(base); k != nil {
		return Codec{k}, nil
	}
	if base.Elem == nil || base.OID == oidInt2Vector || base.OID == oidOIDVector {
		return Codec{asText(base.Name)}, nil
	}
	elem := *base.Elem
	if elem.Mod == -1 {
		elem.Mod = base.Mod // numeric(10,2)[] carries its element's typmod
	}
	if elem, err = undomain(elem); err != nil {
		return Codec{}, err
	}
	if k := scalar(elem); k != nil {
		return Codec{newList(k)}, nil
	}
	return Codec{asText(base.Name)}, nil
}

// undomain replaces a domain by the type beneath, typmod included.
func undomain(t wal.TypeInfo) (wal.TypeInfo, error) {
	name := t.Name
	for range maxDomainDepth {
		if t.Kind != 'd' {
			return t, nil
		}
		if t.Base == nil {
			return t, fmt.Errorf("resolve domain %s: its base type is missing", name)
		}
		mod := t.Mod
		t = *t.Base
		if t.Mod == -1 {
			t.Mod = mod
		}
	}
	return t, fmt.Errorf("resolve domain %s: more than %d domains deep", name, maxDomainDepth)
}

// scalar is the kind of a type that has a codec of its own, else nil.
func scalar(t wal.TypeInfo) kind {
	switch t.OID {
	case oidBool:
		return boolKind{}
	case oidInt2:
		return int32Kind{typ: "int2", wire: 2}
	case oidInt4:
		return int32Kind{typ: "int4", wire: 4}
	case oidInt8:
		return int64Kind{}
	case oidFloat4:
		return float32Kind{}
	case oidFloat8:
		return float64Kind{}
	case oidNumeric:
		return numericFor(t.Mod)
	case oidText, oidVarchar, oidName, oidBpchar, oidJSON, oidXML:
		return &bytesKind{typ: t.Name, ice: iceberg.PrimitiveTypes.String, arr: arrow.BinaryTypes.String, bin: true}
	case oidJSONB:
		return &bytesKind{typ: "jsonb", ice: iceberg.PrimitiveTypes.String, arr: arrow.BinaryTypes.String, bin: true, versioned: true}
	case oidChar:
		return converted(`"char"`, appendCharText, appendChar)
	case oidBytea:
		return &bytesKind{typ: "bytea", ice: iceberg.PrimitiveTypes.Binary, arr: arrow.BinaryTypes.Binary, bin: true, fromText: appendHex}
	case oidBit, oidVarbit:
		return converted(t.Name, nil, appendBits)
	case oidInet, oidCIDR:
		return converted(t.Name, nil, appendInet)
	case oidMacaddr, oidMacaddr8:
		return converted(t.Name, nil, appendMAC)
	case oidUUID:
		return uuidKind{}
	case oidDate:
		return dateKind{}
	case oidTime:
		return timeKind{}
	case oidTimestamp:
		return timestampKind{}
	case oidTimestamptz:
		return timestampKind{tz: true}
	}
	// An extension's type has no fixed OID; citext sends its text as it is.
	if t.Kind == 'e' || t.Kind == 'b' && t.Name == "citext" && !t.NoSend {
		return &bytesKind{typ: t.Name, ice: iceberg.PrimitiveTypes.String, arr: arrow.BinaryTypes.String, bin: true}
	}
	return nil
}

// asText is the kind of a type that is kept in Postgres' text form.
func asText(name string) kind {
	return &bytesKind{typ: name, ice: iceberg.PrimitiveTypes.String, arr: arrow.BinaryTypes.String}
}

// converted is the kind of a type whose lake value is its text form, made from
// the binary one by fromBinary.
func converted(name string, fromText, fromBinary convert) kind {
	return &bytesKind{typ: name, ice: iceberg.PrimitiveTypes.String, arr: arrow.BinaryTypes.String, bin: true,
		fromText: fromText, fromBinary: fromBinary}
}

// numericFor chooses the form of a numeric by its typmod. A scale may be
// negative or larger than the precision: numeric(3,-2) counts hundreds and
// numeric(2,4) holds up to 0.0099.
func numericFor(mod int32) kind {
	if mod < 4 {
		return converted("numeric", nil, appendNumeric)
	}
	mod -= 4
	p := int(mod >> 16 & 0xffff)
	s := int(mod&0x7ff^0x400) - 0x400 // 11 bits, signed
	name := "numeric(" + strconv.Itoa(p) + "," + strconv.Itoa(s) + ")"
	if s < 0 {
		p, s = p-s, 0
	}
	if s > p {
		p = s
	}
	if p < 1 || p > 38 {
		return converted(name, nil, appendNumeric)
	}
	return newDecimal(name, p, s)
}

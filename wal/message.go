package wal

import "time"

// Kind is a pgoutput message's first byte.
type Kind byte

// Column is a column as a Relation message has it.
type Column struct {
	Key     bool // part of the replica identity
	Name    string
	TypeOID uint32
	TypeMod int32 // -1: none; always -1 for a domain
}

// Relation is a table as the stream describes it before its rows. Its slices
// and strings are copies: it may be kept.
type Relation struct {
	ID              uint32
	Namespace, Name string
	ReplicaIdentity byte // d default, n nothing, f full, i index
	Columns         []Column
}

// Value is one column of a tuple. Data points into the message.
type Value struct {
	Kind byte // n NULL, u unchanged TOAST, t text, b binary
	Data []byte
}

// Tuple is one row's columns in the Relation's order. It is valid until the
// next Decode, its Data as long as the message's buffer.
type Tuple []Value

// TypeInfo describes a Postgres type as pg_type has it: what a codec needs.
type TypeInfo struct {
	OID    uint32
	Mod    int32     // typmod as it applies: a domain's own typtypmod where the column has none; -1 none
	Schema string    // of the type
	Name   string    // typname: int4, _int4, my_enum
	Kind   byte      // typtype: b base, e enum, d domain, c composite, r range, m multirange, p pseudo
	Base   *TypeInfo // of a domain: the type beneath, Mod resolved
	Elem   *TypeInfo // of a true array (typcategory A): the element type
	NoSend bool      // typsend = 0: only the text form can be had
}

// Clock turns pgoutput's microseconds since 2000-01-01 UTC into a time.
func Clock(us int64) time.Time {
	return time.UnixMicro(us + 946684800_000_000).UTC()
}

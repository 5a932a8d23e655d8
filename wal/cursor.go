package wal

import (
	"bytes"
	"encoding/binary"
	"time"
)

// cursor reads a message from at on. After the first thing wrong all reads
// give zero, so that callers check once, at the end.
type cursor struct {
	b     []byte
	at    int
	wrong string
}

const truncated = "the message is cut short"

func (c *cursor) fail(what string) {
	if c.wrong == "" {
		c.wrong = what
	}
}

func (c *cursor) left() int { return len(c.b) - c.at }

// take returns the next n bytes, or nil when they aren't there.
func (c *cursor) take(n int) []byte {
	if c.wrong != "" || n > len(c.b)-c.at {
		c.fail(truncated)
		return nil
	}
	p := c.b[c.at : c.at+n : c.at+n]
	c.at += n
	return p
}

func (c *cursor) byte() byte {
	if p := c.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if p := c.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if p := c.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	if p := c.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (c *cursor) lsn() LSN { return LSN(c.uint64()) }

func (c *cursor) time() time.Time { return Clock(int64(c.uint64())) }

func (c *cursor) xid() uint32 {
	x := c.uint32()
	if x == 0 {
		c.fail("the transaction number is 0")
	}
	return x
}

func (c *cursor) noFlags() {
	if c.byte() != 0 {
		c.fail("unknown flags")
	}
}

func (c *cursor) bytes(n uint32) []byte {
	if int64(n) > int64(c.left()) {
		c.fail(truncated)
		return nil
	}
	return c.take(int(n))
}

// string reads up to a zero byte.
func (c *cursor) string() string {
	if c.wrong != "" {
		return ""
	}
	n := bytes.IndexByte(c.b[c.at:], 0)
	if n < 0 {
		c.fail("a string has no end")
		return ""
	}
	s := string(c.b[c.at : c.at+n])
	c.at += n + 1
	return s
}

// namespace reads a schema, which is empty for pg_catalog.
func (c *cursor) namespace() string {
	if s := c.string(); s != "" {
		return s
	}
	return "pg_catalog"
}

// columnBytesMin is the least a column of a Relation takes: flags, an empty
// name, type and typmod.
const columnBytesMin = 1 + 1 + 4 + 4

func (c *cursor) relation() *Relation {
	r := &Relation{ID: c.uint32(), Namespace: c.namespace(), Name: c.string(), ReplicaIdentity: c.byte()}
	n := int(c.uint16())
	if n > c.left()/columnBytesMin {
		c.fail("more columns than the message can hold")
		return nil
	}
	r.Columns = make([]Column, n)
	for i := range r.Columns {
		flags := c.byte()
		r.Columns[i] = Column{Key: flags&1 != 0, Name: c.string(), TypeOID: c.uint32(), TypeMod: int32(c.uint32())}
	}
	return r
}

// tuple appends a row's values to t. This is the hot loop: it works on local
// variables, and looks for room once per value.
func (c *cursor) tuple(t Tuple) Tuple {
	n := int(c.uint16())
	if c.wrong != "" {
		return t
	}
	b, at := c.b, c.at
	for range n {
		if at >= len(b) {
			c.at = at
			c.fail(truncated)
			return t
		}
		kind := b[at]
		at++
		switch kind {
		case 'n', 'u':
			t = append(t, Value{Kind: kind})
		case 't', 'b':
			if len(b)-at < 4 {
				c.at = at
				c.fail(truncated)
				return t
			}
			size := int64(binary.BigEndian.Uint32(b[at:]))
			at += 4
			if size > int64(len(b)-at) {
				c.at = at
				c.fail("a value is longer than the message")
				return t
			}
			end := at + int(size)
			t = append(t, Value{Kind: kind, Data: b[at:end:end]})
			at = end
		default:
			c.at = at - 1
			c.fail("unknown kind of value")
			return t
		}
	}
	c.at = at
	return t
}

package audit

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	columns "firn/lake/column"
)

// sum is the checksum of a side's rows.
type sum = columns.Sum

func side(s sum) Side { return Side{Rows: s.Rows, Checksum: s.Checksum()} }

// bucketCount divides a table by the hashes of its keys, so that a search for
// differing rows reads all but keeps few.
const bucketCount = 1 << 14

func bucketOf(key xxh3.Uint128) int { return int(key.Hi % bucketCount) }

// buckets are the checksums of both sides, used again for each table.
type buckets struct{ postgres, lake []sum }

func newBuckets() *buckets {
	return &buckets{make([]sum, bucketCount), make([]sum, bucketCount)}
}

// hasher hashes rows of plain forms.
type hasher struct {
	key []int // places of the key's columns; empty: the row is its key
	buf []byte
}

// hash gives a row's hash and its key's. NULL is left out, and tells itself
// from the empty string by the places of the others.
func (h *hasher) hash(row [][]byte) (all, key xxh3.Uint128) {
	h.buf = h.buf[:0]
	for i, v := range row {
		h.buf = appendCell(h.buf, i, v)
	}
	all = xxh3.Hash128(h.buf)
	if len(h.key) == 0 {
		return all, all
	}
	h.buf = h.buf[:0]
	for _, i := range h.key {
		h.buf = appendCell(h.buf, i, row[i])
	}
	return all, xxh3.Hash128(h.buf)
}

func appendCell(buf []byte, i int, v []byte) []byte {
	if v == nil {
		return buf
	}
	buf = binary.BigEndian.AppendUint32(buf, uint32(i))
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(v)))
	return append(buf, v...)
}

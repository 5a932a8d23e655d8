package life

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"time"

	"firn/wal"
)

// Ledger knows what the source's one table holds: a row is made of its id and
// its version alone. The next transaction of it is a fixed mix of inserts,
// random updates and random deletes. It is not for two goroutines.
type Ledger struct {
	rand     *rand.Rand
	versions []uint8 // by id; 0: no such row
	rows     int64
}

// NewLedger begins with rows of ids 1 to rows.
func NewLedger(rows int64, seed uint64) *Ledger {
	l := &Ledger{rand: rand.New(rand.NewPCG(seed, 1)), versions: make([]uint8, 1, rows+1)}
	for range rows {
		l.insert()
	}
	return l
}

// Rows is how many there are.
func (l *Ledger) Rows() int64 { return l.rows }

func (l *Ledger) insert() (id int64) {
	l.versions = append(l.versions, 1)
	l.rows++
	return int64(len(l.versions) - 1)
}

// some is a row at random.
func (l *Ledger) some() (id int64) {
	for {
		if id = 1 + l.rand.Int64N(int64(len(l.versions)-1)); l.versions[id] > 0 {
			return id
		}
	}
}

// Updates and deletes, of a hundred changes; the others are inserts.
const (
	updatesOf100 = 20
	deletesOf100 = 5
)

// columns are the ten that other writers were measured with; a row's version is
// in i1.
var columns = []struct {
	name string
	typ  wal.TypeInfo
}{
	{"id", builtin(20, "int8")},
	{"user_id", builtin(23, "int4")},
	{"kind", builtin(25, "text")},
	{"amount", wal.TypeInfo{OID: 1700, Mod: (12<<16 | 2) + 4, Schema: "pg_catalog", Name: "numeric", Kind: 'b'}},
	{"ok", builtin(16, "bool")},
	{"created_at", builtin(1184, "timestamptz")},
	{"note", builtin(25, "text")},
	{"f1", builtin(701, "float8")},
	{"i1", builtin(23, "int4")},
	{"tags", builtin(25, "text")},
}

func builtin(oid uint32, name string) wal.TypeInfo {
	return wal.TypeInfo{OID: oid, Mod: -1, Schema: "pg_catalog", Name: name, Kind: 'b'}
}

// row is one row's values.
type row struct {
	id, user, version int64
	kind, tag         int64
	cents             int64
	ok                bool
	at                int64 // seconds since firstSecond
	note              [32]byte
	f                 float64
}

// firstSecond is when the row with id 0 would have been made; Unix seconds.
const firstSecond = 1704067200 // 2024-01-01

func rowOf(id int64, version uint8) (r row) {
	v := int64(version)
	r = row{id: id, user: (id*7 + v*13) % 100_000, version: v, kind: (id + v) % 10, tag: id % 100,
		cents: (id*31 + v*977) % 1_000_000, ok: (id+v)%2 == 0, at: id, f: float64(id)/3 + float64(v)}
	var in [9]byte
	binary.BigEndian.PutUint64(in[:], uint64(id))
	in[8] = version
	sum := md5.Sum(in[:])
	hex.Encode(r.note[:], sum[:])
	return r
}

// texts appends the row as pgoutput has it: for each column 't', a length, a text.
func (r *row) texts(b []byte) []byte {
	value := func(fill func([]byte) []byte) {
		b = append(b, 't', 0, 0, 0, 0)
		at := len(b)
		b = fill(b)
		binary.BigEndian.PutUint32(b[at-4:], uint32(len(b)-at))
	}
	number := func(n int64) { value(func(b []byte) []byte { return strconv.AppendInt(b, n, 10) }) }
	number(r.id)
	number(r.user)
	value(r.kindText)
	value(r.amountText)
	value(func(b []byte) []byte {
		if r.ok {
			return append(b, 't')
		}
		return append(b, 'f')
	})
	value(func(b []byte) []byte {
		return append(time.Unix(firstSecond+r.at, 0).UTC().AppendFormat(b, "2006-01-02 15:04:05"), "+00"...)
	})
	value(r.noteText)
	value(func(b []byte) []byte { return strconv.AppendFloat(b, r.f, 'g', -1, 64) })
	number(r.version)
	value(r.tagText)
	return b
}

func (r *row) kindText(b []byte) []byte {
	return strconv.AppendInt(append(b, "kind"...), r.kind, 10)
}

func (r *row) amountText(b []byte) []byte {
	b = strconv.AppendInt(b, r.cents/100, 10)
	return append(b, '.', byte('0'+r.cents/10%10), byte('0'+r.cents%10))
}

func (r *row) noteText(b []byte) []byte { return append(append(b, r.note[:]...), "note"...) }

func (r *row) tagText(b []byte) []byte { return strconv.AppendInt(append(b, "tag"...), r.tag, 10) }

// binary fills values with the row as COPY has it; buf is overwritten.
func (r *row) binary(values [][]byte, buf []byte) {
	buf = buf[:0]
	for i, fill := range []func([]byte) []byte{
		func(b []byte) []byte { return binary.BigEndian.AppendUint64(b, uint64(r.id)) },
		func(b []byte) []byte { return binary.BigEndian.AppendUint32(b, uint32(r.user)) },
		r.kindText,
		r.amountBinary,
		func(b []byte) []byte {
			if r.ok {
				return append(b, 1)
			}
			return append(b, 0)
		},
		func(b []byte) []byte {
			const epoch = 946684800 // Postgres counts from 2000 on
			return binary.BigEndian.AppendUint64(b, uint64((firstSecond+r.at-epoch)*1e6))
		},
		r.noteText,
		func(b []byte) []byte { return binary.BigEndian.AppendUint64(b, math.Float64bits(r.f)) },
		func(b []byte) []byte { return binary.BigEndian.AppendUint32(b, uint32(r.version)) },
		r.tagText,
	} {
		at := len(buf)
		buf = fill(buf)
		values[i] = buf[at:len(buf):len(buf)]
	}
}

// amountBinary is numeric's binary form: digits to base 10,000.
func (r *row) amountBinary(b []byte) []byte {
	whole, part := r.cents/100, r.cents%100*100
	weight := int64(0)
	digits := []int64{whole, part}
	if part == 0 {
		digits = digits[:1]
	}
	if whole == 0 {
		digits, weight = digits[1:], -1
	}
	if whole == 0 && part == 0 {
		digits, weight = nil, 0
	}
	for _, n := range append([]int64{int64(len(digits)), weight, 0, 2}, digits...) {
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	}
	return b
}

// SumSQL is DuckDB's query, of a table to be named, for what Sum gives.
const SumSQL = `select count(*)::varchar, coalesce(sum(('0x' || substr(md5(concat_ws('|', id, user_id, kind, amount, ok::int, epoch_us(created_at), note, floor(f1 * 1000)::bigint, i1, tags)), 1, 15))::bigint), 0)::varchar from %s`

// Sum is the number of rows, and the sum of 60 bits of a hash of each one's values,
// as decimals.
func (l *Ledger) Sum() (rows, sum string) {
	const parts = 8
	sums, counts := make([]big.Int, parts), make([]int64, parts)
	done := make(chan struct{})
	for p := range parts {
		go func() {
			defer func() { done <- struct{}{} }()
			var text []byte
			for id := 1 + p; id < len(l.versions); id += parts {
				if l.versions[id] == 0 {
					continue
				}
				r := rowOf(int64(id), l.versions[id])
				text = r.sumText(text[:0])
				hash := md5.Sum(text)
				counts[p]++
				sums[p].Add(&sums[p], new(big.Int).SetUint64(binary.BigEndian.Uint64(hash[:])>>4))
			}
		}()
	}
	total, all := new(big.Int), int64(0)
	for range parts {
		<-done
	}
	for p := range parts {
		total.Add(total, &sums[p])
		all += counts[p]
	}
	return fmt.Sprint(all), total.String()
}

func (r *row) sumText(b []byte) []byte {
	truth := 0
	if r.ok {
		truth = 1
	}
	b = fmt.Appendf(b, "%d|%d|", r.id, r.user)
	b = append(r.kindText(b), '|')
	b = append(r.amountText(b), '|')
	b = fmt.Appendf(b, "%d|%d|", truth, (firstSecond+r.at)*1e6)
	b = append(r.noteText(b), '|')
	b = fmt.Appendf(b, "%d|%d|", int64(math.Floor(r.f*1000)), r.version)
	return r.tagText(b)
}

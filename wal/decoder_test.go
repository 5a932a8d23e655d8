package wal_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/wal"
)

var moment = time.Date(2026, 11, 23, 2, 0, 0, 123456000, time.UTC)

func decode(t testing.TB, d *wal.Decoder, e *encoder) wal.Kind {
	t.Helper()
	kind, err := d.Decode(e.b)
	require.NoError(t, err)
	return kind
}

func TestBoundaries(t *testing.T) {
	var d wal.Decoder
	require.Equal(t, wal.KindBegin, decode(t, &d, message('B').lsn(0x1600000001).time(moment).u32(7)))
	require.Equal(t, wal.Begin{FinalLSN: 0x1600000001, Time: moment, XID: 7}, d.Begin)
	require.Equal(t, wal.KindCommit, decode(t, &d, message('C').u8(0).lsn(1).lsn(2).time(moment)))
	require.Equal(t, wal.Commit{LSN: 1, EndLSN: 2, Time: moment}, d.Commit)
	require.Equal(t, wal.KindOrigin, decode(t, &d, message('O').lsn(3).str("there")))
	require.Equal(t, wal.Origin{LSN: 3, Name: "there"}, d.Origin)
	require.Equal(t, wal.KindStreamStart, decode(t, &d, message('S').u32(7).u8(1)))
	require.Equal(t, wal.StreamStart{XID: 7, First: true}, d.StreamStart)
	require.True(t, d.InStream())
	require.Equal(t, wal.KindStreamStop, decode(t, &d, message('E')))
	require.False(t, d.InStream())
	decode(t, &d, message('S').u32(7).u8(0))
	require.False(t, d.StreamStart.First)
	d.Reset()
	require.False(t, d.InStream())
	require.Equal(t, wal.KindStreamCommit, decode(t, &d, message('c').u32(7).u8(0).lsn(1).lsn(2).time(moment)))
	require.Equal(t, wal.StreamCommit{XID: 7, LSN: 1, EndLSN: 2, Time: moment}, d.StreamCommit)
	require.Equal(t, wal.KindStreamAbort, decode(t, &d, message('A').u32(7).u32(8).lsn(9).time(moment)))
	require.Equal(t, wal.StreamAbort{XID: 7, SubXID: 8, LSN: 9, Time: moment}, d.StreamAbort)
	decode(t, &d, message('A').u32(7).u32(7))
	require.Equal(t, wal.StreamAbort{XID: 7, SubXID: 7}, d.StreamAbort)
}

func TestDescriptions(t *testing.T) {
	for _, streamed := range []bool{false, true} {
		var d wal.Decoder
		var xid uint32
		if streamed {
			xid = 99
		}
		d.SetInStream(streamed)
		decode(t, &d, message('R').xid(xid).u32(5).str("").str("pg_thing").u8('f').u16(2).
			u8(1).str("id").u32(23).u32(0xffffffff).u8(0).str("v").u32(1043).u32(11))
		require.Equal(t, &wal.Relation{ID: 5, Namespace: "pg_catalog", Name: "pg_thing", ReplicaIdentity: 'f', Columns: []wal.Column{
			{Key: true, Name: "id", TypeOID: 23, TypeMod: -1}, {Name: "v", TypeOID: 1043, TypeMod: 11},
		}}, d.Relation)
		require.Equal(t, xid, d.XID)
		kept := d.Relation
		decode(t, &d, message('R').xid(xid).u32(6).str("s").str("t").u8('d').u16(0))
		require.EqualValues(t, 5, kept.ID, "a Relation may be kept")

		decode(t, &d, message('Y').xid(xid).u32(16385).str("public").str("mood"))
		require.Equal(t, wal.Type{OID: 16385, Namespace: "public", Name: "mood"}, d.Type)

		for flags, want := range map[byte]wal.Truncate{
			0: {}, 1: {Cascade: true}, 2: {Restart: true}, 3: {Cascade: true, Restart: true},
		} {
			want.Relations = []uint32{1, 2, 3}
			decode(t, &d, message('T').xid(xid).u32(3).u8(flags).u32(1).u32(2).u32(3))
			require.Equal(t, want, d.Truncate)
			require.Equal(t, xid, d.XID)
		}

		decode(t, &d, message('M').xid(xid).u8(1).lsn(8).str("p").bytes([]byte("content")))
		require.Equal(t, wal.Logical{Transactional: true, LSN: 8, Prefix: "p", Content: []byte("content")}, d.Logical)
		decode(t, &d, message('M').xid(xid).u8(0).lsn(8).str("").bytes(nil))
		require.False(t, d.Logical.Transactional)
		require.Empty(t, d.Logical.Content)
	}
}

func TestRows(t *testing.T) {
	row := wal.Tuple{{Kind: 't', Data: []byte("1")}, {Kind: 'n'}, {Kind: 'u'}, {Kind: 'b', Data: []byte{0, 1}}, {Kind: 't', Data: []byte{}}}
	key := wal.Tuple{{Kind: 't', Data: []byte("1")}, {Kind: 'n'}}
	for _, xid := range []uint32{0, 4_000_000_000} {
		var d wal.Decoder
		d.SetInStream(xid != 0)
		for _, test := range []struct {
			e        *encoder
			kind     wal.Kind
			oldKind  byte
			old, new wal.Tuple
		}{
			{message('I').xid(xid).u32(5).tuple('N', row), wal.KindInsert, 0, nil, row},
			{message('U').xid(xid).u32(5).tuple('N', row), wal.KindUpdate, 0, nil, row},
			{message('U').xid(xid).u32(5).tuple('K', key).tuple('N', row), wal.KindUpdate, 'K', key, row},
			{message('U').xid(xid).u32(5).tuple('O', row).tuple('N', row), wal.KindUpdate, 'O', row, row},
			{message('D').xid(xid).u32(5).tuple('K', key), wal.KindDelete, 'K', key, nil},
			{message('D').xid(xid).u32(5).tuple('O', row), wal.KindDelete, 'O', row, nil},
			{message('I').xid(xid).u32(5).tuple('N', wal.Tuple{}), wal.KindInsert, 0, nil, wal.Tuple{}},
		} {
			require.Equal(t, test.kind, decode(t, &d, test.e))
			require.Equal(t, xid, d.XID)
			require.EqualValues(t, 5, d.RelationID)
			require.Equal(t, test.oldKind, d.OldKind)
			require.Equal(t, test.old, d.Old)
			require.Equal(t, len(test.new), len(d.New))
			if len(test.new) > 0 {
				require.Equal(t, test.new, d.New)
			}
		}
		decode(t, &d, message('O').lsn(1).str("x"))
		require.Zero(t, d.XID, "what carries no transaction has none")
	}
}

func TestMalformed(t *testing.T) {
	long := strings.Repeat("x", 10)
	for name, test := range map[string]struct {
		stream bool
		e      *encoder
		want   string
	}{
		"empty":                      {false, &encoder{}, "it is empty"},
		"unknown kind":               {false, message('Z'), `unknown kind 'Z'`},
		"bytes left over":            {false, message('E').u8(0), "no streamed segment"},
		"left over in a stop":        {true, message('E').u8(0), "left over"},
		"left over in a row":         {false, message('I').u32(1).tuple('N', nil).u8(0), "left over"},
		"commit flags":               {false, message('C').u8(1).lsn(1).lsn(2).time(moment), "unknown flags"},
		"unknown tuple tag":          {false, message('I').u32(1).tuple('X', nil), "unknown tuple tag"},
		"an insert's key":            {false, message('I').u32(1).tuple('K', nil), "unknown tuple tag"},
		"a delete's new row":         {false, message('D').u32(1).tuple('N', nil), "unknown tuple tag"},
		"an update without new":      {false, message('U').u32(1).tuple('K', nil), "cut short"},
		"unknown kind of value":      {false, message('I').u32(1).u8('N').u16(1).u8('x'), "unknown kind of value"},
		"value too long":             {false, message('I').u32(1).u8('N').u16(1).u8('t').u32(1 << 31), "longer than the message"},
		"value length -1":            {false, message('I').u32(1).u8('N').u16(1).u8('t').u32(1<<32 - 1), "longer than the message"},
		"value without length":       {false, message('I').u32(1).u8('N').u16(1).u8('t').u16(0), "cut short"},
		"fewer values than columns":  {false, message('I').u32(1).u8('N').u16(2).u8('n'), "cut short"},
		"string without end":         {false, &encoder{[]byte("O12345678" + long)}, "a string has no end"},
		"too many columns":           {false, message('R').u32(1).str("").str("").u8('d').u16(65535), "more columns than"},
		"too many tables":            {false, message('T').u32(1<<32 - 1).u8(0), "more tables than"},
		"content too long":           {false, message('M').u8(0).lsn(1).str("").u32(1 << 30).u8(1), "cut short"},
		"no transaction in a stream": {true, message('I').u32(0).u32(1).tuple('N', nil), "transaction number is 0"},
		"begin in a stream":          {true, message('B').lsn(1).time(moment).u32(1), "within a streamed segment"},
		"stream in a stream":         {true, message('S').u32(1).u8(1), "within a streamed segment"},
		"abort in a stream":          {true, message('A').u32(1).u32(1), "within a streamed segment"},
		"half an abort LSN":          {false, message('A').u32(1).u32(1).u32(1), "cut short"},
		"stop outside":               {false, message('E'), "no streamed segment"},
	} {
		t.Run(name, func(t *testing.T) {
			var d wal.Decoder
			d.SetInStream(test.stream)
			_, err := d.Decode(test.e.b)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "decode ")
			require.Equal(t, test.stream, d.InStream(), "an error changes no state")
		})
	}
	for _, kind := range "bPKrp" {
		_, err := new(wal.Decoder).Decode([]byte{byte(kind), 0, 0})
		require.ErrorIs(t, err, wal.ErrTwoPhase)
	}
}

// TestTruncations cuts every kind of captured message at every length.
func TestTruncations(t *testing.T) {
	for _, c := range captures {
		seen := map[string]int{}
		var d wal.Decoder
		for _, m := range readCapture(t, c.name) {
			in := d.InStream()
			kind, err := d.Decode(m.msg)
			if err != nil {
				require.ErrorIs(t, err, wal.ErrTwoPhase)
				continue
			}
			if key := kind.String() + string(m.msg[1:min(9, len(m.msg))]); seen[key] > 0 || len(m.msg) > 500 {
				continue
			} else {
				seen[key]++
			}
			var cut wal.Decoder
			for n := range len(m.msg) {
				if kind == wal.KindStreamAbort && n == 9 {
					continue // the form without LSN and time
				}
				cut.SetInStream(in)
				_, err := cut.Decode(m.msg[:n])
				require.Error(t, err, "%v cut to %d of %d bytes", kind, n, len(m.msg))
			}
		}
		require.NotEmpty(t, seen)
	}
}

// TestCapturesEncode proves that nothing is lost in decoding.
func TestCapturesEncode(t *testing.T) {
	for _, c := range captures {
		var d wal.Decoder
		for _, m := range readCapture(t, c.name) {
			kind, err := d.Decode(m.msg)
			if err != nil {
				require.ErrorIs(t, err, wal.ErrTwoPhase)
				continue
			}
			if kind == wal.KindType && d.Type.Namespace == "pg_catalog" {
				continue // Postgres writes that schema as nothing
			}
			require.Equal(t, m.msg, encode(kind, &d), "%v", kind)
		}
	}
}

func TestLSN(t *testing.T) {
	for text, want := range map[string]wal.LSN{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1} {
		got, err := wal.ParseLSN(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, text, got.String())
		b, err := got.MarshalText()
		require.NoError(t, err)
		var back wal.LSN
		require.NoError(t, back.UnmarshalText(b))
		require.Equal(t, want, back)
	}
	for _, text := range []string{"", "0", "/", "0/", "/0", "1/2/3", "x/1", "1/x", "100000000/0", "-1/0", " 0/0"} {
		_, err := wal.ParseLSN(text)
		require.ErrorContains(t, err, "16/B374D848", "%q", text)
		back := wal.LSN(5)
		require.Error(t, back.UnmarshalText([]byte(text)))
		require.EqualValues(t, 5, back)
	}
}

// tenColumns is a row as the throughput measurements use it.
func tenColumns() wal.Tuple {
	var t wal.Tuple
	for _, v := range []string{"123456789", "42", "17.25", "2026-11-23 02:00:00.123456+00", "a name of medium length", "t", "3.14159", "7f3c2d1e-0b5a-4c6d-8e9f-102132435465", "", "short"} {
		t = append(t, wal.Value{Kind: 't', Data: []byte(v)})
	}
	t[8] = wal.Value{Kind: 'n'}
	return t
}

func rows() map[string][]byte {
	row, key := tenColumns(), make(wal.Tuple, 10)
	for i := range key {
		key[i].Kind = 'n'
	}
	key[0] = row[0]
	return map[string][]byte{
		"Insert":     message('I').u32(16384).tuple('N', row).b,
		"Update":     message('U').u32(16384).tuple('N', row).b,
		"UpdateFull": message('U').u32(16384).tuple('O', row).tuple('N', row).b,
		"Delete":     message('D').u32(16384).tuple('K', key).b,
	}
}

func TestRowsAllocateNothing(t *testing.T) {
	var d wal.Decoder
	for name, msg := range rows() {
		allocs := testing.AllocsPerRun(100, func() {
			if _, err := d.Decode(msg); err != nil {
				t.Error(err)
			}
		})
		require.Zero(t, allocs, name)
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, msg := range rows() {
		b.Run(name, func(b *testing.B) {
			var d wal.Decoder
			b.SetBytes(int64(len(msg)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Decode(msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package slot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"firn/wal"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		table    string
		want     bool
	}{
		{nil, "public.orders", true},
		{[]string{"public.orders"}, "public.orders", true},
		{[]string{"public.orders"}, "public.orders2", false},
		{[]string{"orders"}, "public.orders", true},
		{[]string{"orders"}, "sales.orders", true},
		{[]string{"public.*"}, "public.orders", true},
		{[]string{"public.*"}, "publicity.orders", false},
		{[]string{"*.order*s"}, "public.order_lines", true},
		{[]string{"*.order*s"}, "public.order_line", false},
		{[]string{"a.aa*aa"}, "a.aaa", false},
		{[]string{"!public.log*"}, "public.logins", false},
		{[]string{"!public.log*"}, "public.orders", true},
		{[]string{"public.*", "!public.log*"}, "public.logins", false},
		{[]string{"!public.log*", "public.*"}, "public.logins", false},
		{[]string{"public.*", "!x.y"}, "sales.orders", false},
	} {
		p, err := parsePatterns(c.patterns)
		require.NoError(t, err)
		n := names(c.table)[0]
		require.Equal(t, c.want, p.match(n), "%v %s", c.patterns, c.table)
	}
	_, err := parsePatterns([]string{"!"})
	require.ErrorContains(t, err, "names nothing")
}

func TestParseHistory(t *testing.T) {
	got, err := parseHistory("# comment\n1\t0/3000000\tno recovery target specified\n\n2\t1A/F0\tbefore 2000\n")
	require.NoError(t, err)
	require.Equal(t, []TimelineSwitch{{1, 0x3000000}, {2, 0x1A000000F0}}, got)
	for _, bad := range []string{"1", "x\t0/1\n", "1\tzz\n"} {
		_, err := parseHistory(bad)
		require.Error(t, err, bad)
	}
}

func TestLiteral(t *testing.T) {
	require.Equal(t, `'a''b'`, literal("a'b"))
	require.Equal(t, `E'a\\''b'`, literal(`a\'b`))
}

func TestStartCommand(t *testing.T) {
	require.Equal(t, `START_REPLICATION SLOT "s" LOGICAL 16/B374D848 (proto_version '2', publication_names '"p","q"', streaming 'on')`,
		startCommand("s", 0x16B374D848, []string{`"p"`, `"q"`}, 15, StreamOptions{Streaming: true}))
	for major := 14; major <= 18; major++ {
		cmd := startCommand("s", 1, []string{`"p"`}, major, StreamOptions{Streaming: true})
		require.NotContains(t, cmd, "two_phase")
		if major >= 16 {
			require.Contains(t, cmd, "proto_version '4'")
		}
	}
}

func TestAppendRanges(t *testing.T) {
	rel := names("a.b")[0]
	for _, c := range []struct{ pages, per int64 }{{0, 2048}, {1, 2048}, {5000, 2048}, {1 << 31, 1 << 29}, {3072, 2048}} {
		got := appendRanges(nil, rel, c.pages, c.per)
		require.NotEmpty(t, got)
		next := uint32(0)
		for i, r := range got {
			require.Equal(t, next, r.From)
			if i == len(got)-1 {
				require.Zero(t, r.To)
			} else {
				require.Greater(t, r.To, r.From)
			}
			next = r.To
		}
	}
}

// copyStream encodes rows as COPY's binary format does.
func copyStream(rows [][][]byte) []byte {
	b := append([]byte(nil), copySignature...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	for _, r := range rows {
		b = binary.BigEndian.AppendUint16(b, uint16(len(r)))
		for _, v := range r {
			if v == nil {
				b = binary.BigEndian.AppendUint32(b, 0xffffffff)
				continue
			}
			b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
			b = append(b, v...)
		}
	}
	return append(b, 0xff, 0xff)
}

func TestCopyParserTakesAnyPieces(t *testing.T) {
	rows := [][][]byte{{[]byte("a"), nil}, {[]byte{}, []byte("bcdef")}, {nil, nil}, {bytes.Repeat([]byte("x"), 300), []byte("y")}}
	all := copyStream(rows)
	for size := 1; size <= len(all); size++ {
		var got [][][]byte
		p := copyParser{row: make([][]byte, 2), fn: func(r [][]byte) error {
			var row [][]byte
			for _, v := range r {
				if v == nil {
					row = append(row, nil)
				} else {
					row = append(row, append([]byte{}, v...))
				}
			}
			got = append(got, row)
			return nil
		}}
		for off := 0; off < len(all); off += size {
			require.NoError(t, p.feed(all[off:min(off+size, len(all))]))
		}
		require.NoError(t, p.finish())
		require.Equal(t, rows, got, size)
	}
	for n := range all {
		p := copyParser{row: make([][]byte, 2), fn: func([][]byte) error { return nil }}
		if err := p.feed(all[:n]); err == nil {
			require.Error(t, p.finish(), n)
		}
	}
}

func FuzzCopyParser(f *testing.F) {
	f.Add(copyStream([][][]byte{{[]byte("a"), nil}}), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		stop := errors.New("stop")
		n := 0
		p := copyParser{row: make([][]byte, 2), fn: func([][]byte) error {
			if n++; n > 100 {
				return stop
			}
			return nil
		}}
		if cut < 0 || cut > len(b) {
			cut = len(b)
		}
		if p.feed(b[:cut]) == nil && p.feed(b[cut:]) == nil {
			_ = p.finish()
		}
	})
}

func frame(typ byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body)))
	return append(b, body...)
}

func TestFrameReader(t *testing.T) {
	big := string(bytes.Repeat([]byte("z"), 3000))
	in := append(frame('d', "one"), frame('Z', "")...)
	in = append(in, frame('d', big)...)
	in = append(in, frame('d', "end")...)
	for _, r := range []io.Reader{bytes.NewReader(in), iotest.OneByteReader(bytes.NewReader(in)), iotest.HalfReader(bytes.NewReader(in))} {
		f := frameReader{r: r, buf: make([]byte, 64)}
		for _, want := range []string{"one", "", big, "end"} {
			_, body, err := f.next()
			require.NoError(t, err)
			require.Equal(t, want, string(body))
		}
		_, _, err := f.next()
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
	f := frameReader{r: bytes.NewReader([]byte{'d', 0xff, 0xff, 0xff, 0xff}), buf: make([]byte, 64)}
	_, _, err := f.next()
	require.ErrorContains(t, err, "length")
}

// xlog is a CopyData frame with one pgoutput message; keepalive asks or not.
func xlog(lsn uint64, payload string) []byte {
	b := append([]byte("w"), make([]byte, 24)...)
	binary.BigEndian.PutUint64(b[1:], lsn)
	binary.BigEndian.PutUint64(b[9:], lsn)
	return frame('d', string(b)+payload)
}

func keepalive(lsn uint64, ask byte) []byte {
	b := append([]byte("k"), make([]byte, 17)...)
	binary.BigEndian.PutUint64(b[1:], lsn)
	b[17] = ask
	return frame('d', string(b))
}

// fakeConn serves bytes as a connection that is then idle or cut.
type fakeConn struct {
	lazyConn
	r io.Reader
}

func (c *fakeConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func readAll(t testing.TB, r io.Reader) ([]wal.Message, *Stream, error) {
	s := &Source{o: Options{Batches: 3}}
	lazy := &lazyConn{}
	st := newStream(s, &wire{Conn: &fakeConn{r: r}, lazy: lazy}, 5, 0)
	rd := &reader{st: st}
	done := make(chan error, 1)
	go func() {
		err := rd.run(t.Context())
		close(st.batches)
		done <- err
	}()
	var out []wal.Message
	for b := range st.Batches() {
		for {
			m, ok, err := b.Next()
			if err != nil || !ok {
				require.NoError(t, err)
				break
			}
			if m.Data != nil {
				m.Data = append([]byte{}, m.Data...)
			}
			out = append(out, m)
		}
		b.Release()
	}
	return out, st, <-done
}

func TestReaderCutsFramesWhereverTheyFall(t *testing.T) {
	var in []byte
	var want []string
	add := func(b []byte, payload string) { in = append(in, b...); want = append(want, payload) }
	add(xlog(10, "first"), "first")
	in = append(in, frame('N', "notice")...)
	in = append(in, frame('S', "status")...)
	add(keepalive(20, 1), "")
	huge := string(bytes.Repeat([]byte("h"), 3*batchBytes))
	add(xlog(30, huge), huge)
	add(xlog(0, "relation"), "relation")
	for range 200 {
		p := string(bytes.Repeat([]byte("p"), 5000))
		add(xlog(40, p), p)
	}
	add(xlog(50, "last"), "last")
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "byte": iotest.OneByteReader, "half": iotest.HalfReader,
	} {
		t.Run(name, func(t *testing.T) {
			got, st, err := readAll(t, wrap(bytes.NewReader(in)))
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.Len(t, got, len(want))
			for i, m := range got {
				require.Equal(t, want[i], string(m.Data))
			}
			require.True(t, got[1].Reply)
			require.Nil(t, got[1].Data)
			require.Equal(t, wal.LSN(50), st.Received())
			require.Equal(t, int64(1), st.asked.Load())
			st.Ack(1000)
			require.Equal(t, wal.LSN(50), st.Acked(), "an acknowledgement never passes what was received")
			st.Ack(40)
			require.Equal(t, wal.LSN(50), st.Acked())
		})
	}
}

func TestReaderEnds(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		want string
	}{
		"copy done": {append(xlog(1, "x"), frame('c', "")...), "shutting down"},
		"error":     {append(xlog(1, "x"), frame('E', "SFATAL\x00VFATAL\x00C57P01\x00Mby command\x00\x00")...), "by command"},
		"unknown":   {append(xlog(1, "x"), frame('d', "?")...), "unknown message"},
		"length":    {append(xlog(1, "x"), 'd', 0, 0, 0, 1), "length 1"},
		"other":     {append(xlog(1, "x"), frame('T', "?")...), "unexpected"},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := readAll(t, bytes.NewReader(c.in))
			require.ErrorContains(t, err, c.want)
			require.Len(t, got, 1, "what came before is delivered")
		})
	}
}

func FuzzReader(f *testing.F) {
	f.Add(append(xlog(1, "x"), keepalive(2, 1)...))
	f.Add(append(xlog(1, "x"), frame('E', "SFATAL\x00C57P01\x00\x00")...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := readAll(t, bytes.NewReader(b)); err == nil {
			t.Fatal("a stream can't end without an error")
		}
	})
}

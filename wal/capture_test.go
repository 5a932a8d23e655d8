package wal_test

import (
	"bufio"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/wal"
	"firn/wal/localpg"
)

var (
	capture = flag.Bool("capture", false, "run the SQL in testdata/wal against real servers and rewrite the captures")
	update  = flag.Bool("update", false, "rewrite the golden files")
)

const captureDir = "../testdata/wal"

// captures lists what was recorded, and how.
var captures = []struct {
	name, version, sql string
	options            string // of the plugin, as SQL
}{
	{"pg14-v1", "14", "capture.sql", "'proto_version', '1', 'messages', 'true'"},
	{"pg14-v2-streamed", "14", "capture.sql", "'proto_version', '2', 'messages', 'true', 'streaming', 'on'"},
	{"pg15-v3-streamed-binary", "15", "capture.sql", "'proto_version', '3', 'messages', 'true', 'streaming', 'on', 'binary', 'true'"},
	{"pg16-v4-streamed", "16", "capture.sql", "'proto_version', '4', 'messages', 'true', 'streaming', 'on'"},
	{"pg18-v4-parallel", "18", "capture.sql", "'proto_version', '4', 'messages', 'true', 'streaming', 'parallel'"},
	{"pg15-v3-two-phase", "15", "two_phase.sql", "'proto_version', '3', 'two_phase', 'true'"},
}

// captured is one message as a capture has it: LSN, transaction, bytes.
type captured struct {
	lsn wal.LSN
	xid string
	msg []byte
}

func readCapture(t testing.TB, name string) []captured {
	t.Helper()
	f, err := os.Open(filepath.Join(captureDir, name+".hex"))
	require.NoError(t, err)
	defer f.Close()
	var all []captured
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		parts := strings.Fields(lines.Text())
		if parts[0] == "#" {
			continue
		}
		require.Len(t, parts, 3)
		lsn, err := wal.ParseLSN(parts[0])
		require.NoError(t, err)
		msg, err := hex.DecodeString(parts[2])
		require.NoError(t, err)
		all = append(all, captured{lsn, parts[1], msg})
	}
	require.NoError(t, lines.Err())
	return all
}

func TestCaptures(t *testing.T) {
	for _, c := range captures {
		t.Run(c.name, func(t *testing.T) {
			if *capture {
				record(t, c.name, c.version, c.sql, c.options)
			}
			var d wal.Decoder
			var out strings.Builder
			p := printer{w: &out}
			for _, m := range readCapture(t, c.name) {
				kind, err := d.Decode(m.msg)
				if err != nil {
					require.ErrorIs(t, err, wal.ErrTwoPhase)
					require.Contains(t, c.name, "two-phase")
					p.line("error: " + err.Error())
					continue
				}
				p.print(kind, &d)
			}
			p.end()
			require.False(t, d.InStream())
			golden := filepath.Join(captureDir, c.name+".golden")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(out.String()), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), out.String())
		})
	}
}

// record runs an SQL file against a server and writes what the slot gives.
func record(t *testing.T, name, version, sql, options string) {
	ctx := t.Context()
	bin, err := localpg.Find(ctx, "", version)
	require.NoError(t, err)
	server, err := localpg.Start(ctx, localpg.Options{BinDir: bin, Settings: map[string]string{
		"max_prepared_transactions": "5",
		"autovacuum":                "off",
		"timezone":                  "UTC",
	}})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()

	text, err := os.ReadFile(filepath.Join(captureDir, sql))
	require.NoError(t, err)
	sessions := map[string]*pgx.Conn{}
	session := func(name string) *pgx.Conn {
		if sessions[name] == nil {
			conn, err := pgx.Connect(ctx, server.URL("postgres"))
			require.NoError(t, err)
			sessions[name] = conn
		}
		return sessions[name]
	}
	at, statement := "", ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if who, ok := strings.CutPrefix(line, "-- @"); ok {
			at = who
			continue
		}
		if strings.HasPrefix(line, "--") {
			continue
		}
		statement += line + "\n"
		if strings.HasSuffix(line, ";") {
			_, err := session(at).PgConn().Exec(ctx, statement).ReadAll()
			require.NoError(t, err, statement)
			statement = ""
		}
	}

	conn := session("reader")
	_, err = conn.Exec(ctx, "SET logical_decoding_work_mem = '64kB'")
	require.NoError(t, err)
	rows, err := conn.Query(ctx, "SELECT lsn::text, xid::text, data FROM pg_logical_slot_peek_binary_changes('cap', NULL, NULL, 'publication_names', 'cap', "+options+")")
	require.NoError(t, err)
	var out strings.Builder
	fmt.Fprintf(&out, "# PostgreSQL %s, %s, %s: LSN, transaction, message\n", version, sql, options)
	var lsn, xid string
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&lsn, &xid, &data}, func() error {
		fmt.Fprintf(&out, "%s %s %x\n", lsn, xid, data)
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(captureDir, name+".hex"), []byte(out.String()), 0o644))
	for _, conn := range sessions {
		require.NoError(t, conn.Close(ctx))
	}
}

// printer writes messages one a line; long runs of one kind are counted.
type printer struct {
	w    *strings.Builder
	last string
	same int
}

const printedRunMax = 3

func (p *printer) line(s string) { p.end(); fmt.Fprintln(p.w, s) }

func (p *printer) end() {
	if p.same > printedRunMax {
		fmt.Fprintf(p.w, "… %d more\n", p.same-printedRunMax)
	}
	p.last, p.same = "", 0
}

func (p *printer) print(kind wal.Kind, d *wal.Decoder) {
	xid := ""
	if d.XID != 0 {
		xid = fmt.Sprintf(" xid=%d", d.XID)
	}
	switch kind {
	case wal.KindInsert, wal.KindUpdate, wal.KindDelete:
		run := fmt.Sprintf("%v %d%s", kind, d.RelationID, xid)
		if run != p.last {
			p.end()
			p.last = run
		}
		if p.same++; p.same > printedRunMax {
			return
		}
		old := ""
		if d.OldKind != 0 {
			old = fmt.Sprintf(" %c%s", d.OldKind, tuple(d.Old))
		}
		next := ""
		if d.New != nil || kind == wal.KindInsert {
			next = " N" + tuple(d.New)
		}
		fmt.Fprintf(p.w, "%s%s%s\n", run, old, next)
		return
	}
	p.end()
	var s string
	switch kind {
	case wal.KindBegin:
		s = fmt.Sprintf("%+v", d.Begin)
	case wal.KindCommit:
		s = fmt.Sprintf("%+v", d.Commit)
	case wal.KindOrigin:
		s = fmt.Sprintf("%+v", d.Origin)
	case wal.KindRelation:
		s = fmt.Sprintf("%+v", *d.Relation)
	case wal.KindType:
		s = fmt.Sprintf("%+v", d.Type)
	case wal.KindTruncate:
		s = fmt.Sprintf("%+v", d.Truncate)
	case wal.KindLogical:
		s = fmt.Sprintf("transactional=%t %v %q %q", d.Logical.Transactional, d.Logical.LSN, d.Logical.Prefix, d.Logical.Content)
	case wal.KindStreamStart:
		s = fmt.Sprintf("%+v", d.StreamStart)
	case wal.KindStreamCommit:
		s = fmt.Sprintf("%+v", d.StreamCommit)
	case wal.KindStreamAbort:
		s = fmt.Sprintf("%+v", d.StreamAbort)
	}
	fmt.Fprintf(p.w, "%v%s %s\n", kind, xid, s)
}

func tuple(t wal.Tuple) string {
	var b strings.Builder
	b.WriteByte('(')
	for i, v := range t {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteByte(v.Kind)
		switch {
		case len(v.Data) > 60:
			fmt.Fprintf(&b, ":%d bytes", len(v.Data))
		case v.Kind == 't':
			fmt.Fprintf(&b, ":%q", v.Data)
		case v.Kind == 'b':
			fmt.Fprintf(&b, ":%x", v.Data)
		}
	}
	b.WriteByte(')')
	return b.String()
}

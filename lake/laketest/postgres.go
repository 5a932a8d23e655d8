package laketest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"firn/wal/localpg"
)

// Postgres starts a Postgres of a major version ("14" … "18"; "": any) for one
// test, with wal_level=logical, and removes it after.
func Postgres(t testing.TB, version string) *localpg.Server {
	t.Helper()
	return PostgresWith(t, version, localpg.Options{})
}

// PostgresWith is Postgres with options of one's own; BinDir and an empty Log
// are filled in.
func PostgresWith(t testing.TB, version string, o localpg.Options) *localpg.Server {
	t.Helper()
	Short(t, "no Postgres")
	bin, err := postgresBin(version)
	if err != nil {
		unavailable(t, "Postgres "+version, "apt-get install postgresql (any), or reach Maven Central, where binaries of 14 to 18 are", err)
	}
	o.BinDir = bin
	s, err := localpg.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("stop Postgres: %v", err)
		}
		if t.Failed() {
			t.Logf("the end of Postgres' log:\n%s", LastLines(s.LogTail(), 20))
		}
	})
	return s
}

var postgresBins sync.Map // version → func() (string, error)

// postgresBin finds or fetches a version's binaries, once a process.
func postgresBin(version string) (string, error) {
	find := sync.OnceValues(func() (string, error) {
		cache, err := CacheDir()
		if err != nil {
			return "", err
		}
		return fetchPostgres(context.Background(), cache, version)
	})
	f, _ := postgresBins.LoadOrStore(version, find)
	return f.(func() (string, error))()
}

func fetchPostgres(ctx context.Context, cache, version string) (string, error) {
	progress, said := terminal(), false
	f := localpg.Finder{CacheDir: cache, Version: version, Progress: func(p localpg.Progress) {
		if !said {
			say(progress, "postgres %s: fetching its binaries, once, into %s", version, cache)
			said = true
		}
	}}
	return f.Find(ctx)
}

// PostgresRows runs a query and gives its rows in the form that a reader of the
// lake gives them (see Result), the types being the Iceberg types that the
// columns are mirrored as. It shares no code with the mirror's codecs.
func PostgresRows(t testing.TB, url, sql string) *Result {
	t.Helper()
	r, err := TryPostgresRows(context.Background(), url, sql)
	if err != nil {
		t.Fatalf("Postgres: %s: %v", sql, err)
	}
	return r
}

// TryPostgresRows is PostgresRows for a query that may fail.
func TryPostgresRows(ctx context.Context, url, sql string) (*Result, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	for k, v := range map[string]string{"client_encoding": "UTF8", "DateStyle": "ISO", "IntervalStyle": "postgres",
		"TimeZone": "UTC", "extra_float_digits": "3", "bytea_output": "hex"} {
		config.RuntimeParams[k] = v
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return QueryPostgres(ctx, conn.PgConn(), sql)
}

// QueryPostgres is PostgresRows on a connection of one's own (in a snapshot,
// say), whose session must have the settings that TryPostgresRows sets.
func QueryPostgres(ctx context.Context, conn *pgconn.PgConn, sql string) (*Result, error) {
	var fields []pgconn.FieldDescription
	var raws [][][]byte
	results := conn.Exec(ctx, sql) // the simple protocol: all values as text
	for results.NextResult() {
		one := results.ResultReader()
		fields, raws = slices.Clone(one.FieldDescriptions()), nil // there without rows, too
		for one.NextRow() {
			row := make([][]byte, len(fields))
			for i, v := range one.Values() {
				row[i] = bytes.Clone(v)
			}
			raws = append(raws, row)
		}
	}
	if err := results.Close(); err != nil {
		return nil, err
	}
	r := &Result{}
	var types []pgType
	for _, f := range fields {
		typ, err := lookUpType(ctx, conn, f.DataTypeOID, f.TypeModifier)
		if err != nil {
			return nil, fmt.Errorf("look up the type of column %s: %w", f.Name, err)
		}
		types = append(types, typ)
		r.Columns = append(r.Columns, Column{f.Name, typ.iceberg()})
	}
	for _, raw := range raws {
		row := make([]string, len(raw))
		for i, v := range raw {
			if v == nil {
				row[i] = Null
				continue
			}
			text, err := types[i].text(string(v))
			if err != nil {
				return nil, fmt.Errorf("read column %s: %w", r.Columns[i].Name, err)
			}
			row[i] = text
		}
		r.Rows = append(r.Rows, row)
	}
	return r, nil
}

// pgType is what the text form of a value depends on.
type pgType struct {
	name string // of the type, or of the element of an array
	mod  int32
	list bool
}

// lookUpType asks the catalog. A query's result has a domain as its base type
// already, but not the elements of an array of one.
func lookUpType(ctx context.Context, conn *pgconn.PgConn, oid uint32, mod int32) (pgType, error) {
	r := conn.ExecParams(ctx, `
		WITH RECURSIVE el AS (
			SELECT t.oid, coalesce(e.oid, t.oid) AS el, e.oid IS NOT NULL AS list
			FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' AND e.typarray = t.oid
			WHERE t.oid = $1::oid
		), base AS (
			SELECT t.oid, t.typname, t.typtype, t.typbasetype, t.typtypmod, list FROM el JOIN pg_type t ON t.oid = el.el
			UNION ALL
			SELECT t.oid, t.typname, t.typtype, t.typbasetype, CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE base.typtypmod END, list
			FROM base JOIN pg_type t ON t.oid = base.typbasetype WHERE base.typtype = 'd'
		)
		SELECT typname, list, typtypmod FROM base WHERE typtype <> 'd'`,
		[][]byte{fmt.Append(nil, oid)}, nil, nil, nil).Read()
	if r.Err != nil {
		return pgType{}, r.Err
	}
	if len(r.Rows) != 1 {
		return pgType{}, fmt.Errorf("no type has OID %d", oid)
	}
	typ := pgType{name: string(r.Rows[0][0]), mod: mod, list: string(r.Rows[0][1]) == "t"}
	if mod < 0 {
		if _, err := fmt.Sscan(string(r.Rows[0][2]), &typ.mod); err != nil {
			return pgType{}, err
		}
	}
	return typ, nil
}

// iceberg is the type that such a column is mirrored as.
func (t pgType) iceberg() string {
	if t.list {
		return "list<" + pgType{name: t.name, mod: t.mod}.iceberg() + ">"
	}
	switch t.name {
	case "bool":
		return "boolean"
	case "int2", "int4":
		return "int"
	case "int8":
		return "long"
	case "float4":
		return "float"
	case "float8":
		return "double"
	case "numeric":
		if p, s, ok := t.decimal(); ok {
			return fmt.Sprintf("decimal(%d, %d)", p, s)
		}
	case "date", "time", "timestamp", "timestamptz", "uuid":
		return t.name
	case "bytea":
		return "binary"
	}
	return "string"
}

// decimal is the precision and scale that hold a numeric of this modifier, if
// any do: a negative scale widens, a scale beyond the precision becomes it.
func (t pgType) decimal() (precision, scale int, ok bool) {
	if t.mod < 4 {
		return 0, 0, false
	}
	m := uint32(t.mod - 4)
	precision = int(m >> 16 & 0xffff)
	scale = int(int32(m<<21) >> 21) // 11 bits, signed
	switch {
	case scale < 0:
		precision, scale = precision-scale, 0
	case scale > precision:
		precision = scale
	}
	return precision, scale, precision <= 38
}

// text brings Postgres' text form to Result's.
func (t pgType) text(v string) (string, error) {
	if t.list {
		list, err := parseArray(v, pgType{name: t.name, mod: t.mod})
		if err != nil {
			return "", err
		}
		return jsonText(list)
	}
	switch t.name {
	case "bool":
		return map[string]string{"t": "true", "f": "false"}[v], nil
	case "float4", "float8":
		return canonicalText(t.iceberg(), v)
	case "bytea":
		return strings.TrimPrefix(v, `\x`), nil
	case "date":
		return astronomical(v), nil
	case "time":
		return sixDigits(v), nil
	case "timestamp", "timestamptz":
		if v == "infinity" || v == "-infinity" {
			return v, nil
		}
		v, bc := strings.CutSuffix(v, " BC")
		v, zoned := strings.CutSuffix(v, "+00")
		date, clock, ok := strings.Cut(v, " ")
		if !ok || zoned != (t.name == "timestamptz") {
			return "", fmt.Errorf("read %s %q: want ISO form in UTC", t.name, v)
		}
		if bc {
			date += " BC"
		}
		text := astronomical(date) + " " + sixDigits(clock)
		if zoned {
			text += "Z"
		}
		return text, nil
	}
	return v, nil
}

// astronomical turns 0044-03-15 BC into -0043-03-15.
func astronomical(date string) string {
	date, bc := strings.CutSuffix(date, " BC")
	if !bc {
		return date
	}
	year, rest, _ := strings.Cut(date, "-")
	var y int
	if _, err := fmt.Sscan(strings.TrimLeft(year, "0"), &y); err != nil || y == 1 {
		return "0000-" + rest
	}
	return fmt.Sprintf("-%04d-%s", y-1, rest)
}

// sixDigits fills up the fraction of a second.
func sixDigits(clock string) string {
	whole, fraction, _ := strings.Cut(clock, ".")
	return whole + "." + (fraction + "000000")[:6]
}

// parseArray reads Postgres' array text, {1,NULL,"a,b"}, with any number of
// dimensions, into nested lists of values in Result's form, nil for NULL.
func parseArray(v string, elem pgType) (any, error) {
	if strings.HasPrefix(v, "[") { // bounds, [0:1]=, where they are not 1
		_, v, _ = strings.Cut(v, "=")
	}
	p := arrayParser{rest: v, elem: elem}
	list, err := p.list()
	if err == nil && p.rest != "" {
		err = fmt.Errorf("%q after its end", p.rest)
	}
	if err != nil {
		return nil, fmt.Errorf("read array %q: %w", v, err)
	}
	return list, nil
}

type arrayParser struct {
	rest string
	elem pgType
}

func (p *arrayParser) list() ([]any, error) {
	if !strings.HasPrefix(p.rest, "{") {
		return nil, fmt.Errorf("want { at %q", p.rest)
	}
	p.rest = p.rest[1:]
	out := []any{}
	if strings.HasPrefix(p.rest, "}") {
		p.rest = p.rest[1:]
		return out, nil
	}
	for {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		if p.rest == "" {
			return nil, fmt.Errorf("no end")
		}
		c := p.rest[0]
		p.rest = p.rest[1:]
		switch c {
		case '}':
			return out, nil
		case ',':
		default:
			return nil, fmt.Errorf("want , or } before %q", p.rest)
		}
	}
}

func (p *arrayParser) value() (any, error) {
	switch {
	case strings.HasPrefix(p.rest, "{"):
		return p.list()
	case strings.HasPrefix(p.rest, `"`):
		var b strings.Builder
		for i := 1; i < len(p.rest); i++ {
			switch c := p.rest[i]; c {
			case '\\':
				i++
				if i < len(p.rest) {
					b.WriteByte(p.rest[i])
				}
			case '"':
				p.rest = p.rest[i+1:]
				return p.elem.text(b.String())
			default:
				b.WriteByte(c)
			}
		}
		return nil, fmt.Errorf("no closing quote")
	default:
		end := strings.IndexAny(p.rest, ",}")
		if end < 0 {
			return nil, fmt.Errorf("no end")
		}
		v := p.rest[:end]
		p.rest = p.rest[end:]
		if strings.EqualFold(v, "NULL") {
			return nil, nil
		}
		return p.elem.text(v)
	}
}

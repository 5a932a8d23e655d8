package laketest

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Null stands for NULL among a Result's values. No Postgres text holds a zero
// byte, so it equals no value.
const Null = "\x00"

// Column is a column of a Result. Type is Iceberg's name of it, as its
// specification writes it: int, long, decimal(12, 2), timestamptz, list<string>.
type Column struct{ Name, Type string }

// Result is what a query gave, each value in the one form that every reader's
// values are brought to:
//
//	boolean            true, false
//	int, long          1, -20
//	float, double      the shortest text that reads back the same, as Go's 'g'
//	                   has it: 0.1, 1e+06, -0, NaN, Infinity, -Infinity
//	decimal            1.50: plain, with all digits of its scale
//	date               2026-11-23; year 0000 is 1 BC, then -0001 …
//	time               02:00:00.000000
//	timestamp          2026-11-23 02:00:00.000000
//	timestamptz        2026-11-23 02:00:00.000000Z, in UTC
//	string             itself
//	uuid               lower case, with hyphens
//	binary, fixed      lower-case hexadecimal, without a prefix
//	list               ["1",null]: JSON of these forms
//	map                [["k","v"]], sorted by key
//	struct             {"a":"1","b":null}, sorted by name
//	NULL               the constant Null
type Result struct {
	Columns []Column
	Rows    [][]string // in the order they came
}

// UnmarshalJSON reads a worker's column-wise answer.
func (r *Result) UnmarshalJSON(b []byte) error {
	var wire struct {
		Columns []struct{ Name, Type string }
		Values  [][]any
		Rows    int
	}
	if err := json.Unmarshal(b, &wire); err != nil {
		return err
	}
	r.Columns, r.Rows = nil, make([][]string, wire.Rows)
	flat := make([]string, wire.Rows*len(wire.Columns))
	for i := range r.Rows {
		r.Rows[i], flat = flat[:len(wire.Columns):len(wire.Columns)], flat[len(wire.Columns):]
	}
	for c, column := range wire.Columns {
		r.Columns = append(r.Columns, Column(column))
		if len(wire.Values[c]) != wire.Rows {
			return fmt.Errorf("read column %s: %d values for %d rows", column.Name, len(wire.Values[c]), wire.Rows)
		}
		for i, v := range wire.Values[c] {
			text, err := canonical(column.Type, v)
			if err != nil {
				return fmt.Errorf("read column %s: %w", column.Name, err)
			}
			r.Rows[i][c] = text
		}
	}
	return nil
}

// canonical brings a worker's value (text, nil, or nested) to Result's form.
func canonical(typ string, v any) (string, error) {
	if v == nil {
		return Null, nil
	}
	if text, ok := v.(string); ok && !strings.Contains(typ, "<") {
		return canonicalText(typ, text)
	}
	n, err := nested(typ, v)
	if err != nil {
		return "", err
	}
	return jsonText(n)
}

// nested brings the leaves of a list, map or struct to Result's form.
func nested(typ string, v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return canonicalText(typ, v)
	case []any:
		inner := typeArgs(typ)
		out := make([]any, len(v))
		for i := range v {
			var err error
			if strings.HasPrefix(typ, "map<") {
				pair, ok := v[i].([]any)
				if !ok || len(pair) != 2 || len(inner) != 2 {
					return nil, fmt.Errorf("want a pair in %s, got %v", typ, v[i])
				}
				var k, val any
				if k, err = nested(inner[0], pair[0]); err == nil {
					val, err = nested(inner[1], pair[1])
				}
				out[i] = []any{k, val}
			} else if len(inner) == 1 {
				out[i], err = nested(inner[0], v[i])
			} else {
				err = fmt.Errorf("an array is no %s", typ)
			}
			if err != nil {
				return nil, err
			}
		}
		if strings.HasPrefix(typ, "map<") {
			sort.Slice(out, func(i, j int) bool {
				return fmt.Sprint(out[i].([]any)[0]) < fmt.Sprint(out[j].([]any)[0])
			})
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for _, field := range typeArgs(typ) {
			name, t, ok := strings.Cut(field, ": ")
			if !ok {
				return nil, fmt.Errorf("an object is no %s", typ)
			}
			var err error
			if out[name], err = nested(t, v[name]); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("no text form for %v as %s", v, typ)
}

// typeArgs cuts map<string, list<int>> into its arguments.
func typeArgs(typ string) []string {
	open := strings.IndexByte(typ, '<')
	if open < 0 || !strings.HasSuffix(typ, ">") {
		return nil
	}
	var args []string
	depth, from, body := 0, 0, typ[open+1:len(typ)-1]
	for i, c := range body {
		switch c {
		case '<', '(':
			depth++
		case '>', ')':
			depth--
		case ',':
			if depth == 0 {
				args, from = append(args, strings.TrimSpace(body[from:i])), i+1
			}
		}
	}
	return append(args, strings.TrimSpace(body[from:]))
}

func canonicalText(typ, text string) (string, error) {
	bits := 64
	switch typ {
	case "float":
		bits = 32
	case "double":
	default:
		return text, nil
	}
	f, err := strconv.ParseFloat(text, bits)
	if err != nil {
		return "", fmt.Errorf("read a %s: %w", typ, err)
	}
	switch text := strconv.FormatFloat(f, 'g', -1, bits); text {
	case "+Inf":
		return "Infinity", nil
	case "-Inf":
		return "-Infinity", nil
	default:
		return text, nil
	}
}

func jsonText(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// Multiset is rows without an order: equal rows are counted. The columns are
// sorted by name, so that two readers need not list them alike.
type Multiset struct {
	Columns []string
	Count   map[string]int // by the row's values, joined
	Len     int
}

// separator lies between the values of a joined row; no value holds a zero byte
// before another character, so rows join in one way only.
const separator = "\x00\x1f"

// Rows counts rows of canonical values; see Result for their form.
func Rows(columns []string, rows [][]string) Multiset {
	order := make([]int, len(columns))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(columns[a], columns[b]) })
	m := Multiset{Count: make(map[string]int, len(rows)), Len: len(rows)}
	for _, i := range order {
		m.Columns = append(m.Columns, columns[i])
	}
	var key []byte
	for _, row := range rows {
		key = key[:0]
		for n, i := range order {
			if n > 0 {
				key = append(key, separator...)
			}
			key = append(key, row[i]...)
		}
		m.Count[string(key)]++
	}
	return m
}

// Multiset is the result without its order and types.
func (r *Result) Multiset() Multiset {
	names := make([]string, len(r.Columns))
	for i, c := range r.Columns {
		names[i] = c.Name
	}
	return Rows(names, r.Rows)
}

// Schema is the columns' names and types, one "name type" each, in order.
func (r *Result) Schema() []string {
	s := make([]string, len(r.Columns))
	for i, c := range r.Columns {
		s[i] = c.Name + " " + c.Type
	}
	return s
}

// Value is the only value of a result of one row and column, "" where it is none.
func (r *Result) Value() string {
	if len(r.Rows) != 1 || len(r.Columns) != 1 {
		return ""
	}
	return r.Rows[0][0]
}

// Diff says how two multisets differ, "" when they are equal. It shows at most
// ten rows of each side.
func Diff(a, b Multiset) string {
	var out strings.Builder
	if !slices.Equal(a.Columns, b.Columns) {
		fmt.Fprintf(&out, "columns differ: %q and %q\n", a.Columns, b.Columns)
		return out.String()
	}
	more := func(side string, x, y Multiset) {
		var rows []string
		total := 0
		for row, n := range x.Count {
			if d := n - y.Count[row]; d > 0 {
				total += d
				rows = append(rows, fmt.Sprintf("%d × %s", d, rowText(x.Columns, row)))
			}
		}
		if total == 0 {
			return
		}
		sort.Strings(rows)
		fmt.Fprintf(&out, "%d rows only %s:\n", total, side)
		for i, row := range rows {
			if i == 10 {
				fmt.Fprintf(&out, "  … and %d different ones more\n", len(rows)-i)
				break
			}
			fmt.Fprintf(&out, "  %s\n", row)
		}
	}
	more("in the first", a, b)
	more("in the second", b, a)
	if out.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("%d rows against %d\n", a.Len, b.Len) + out.String()
}

func rowText(columns []string, row string) string {
	var b strings.Builder
	for i, v := range strings.Split(row, separator) {
		if i > 0 {
			b.WriteByte(' ')
		}
		name := "?"
		if i < len(columns) {
			name = columns[i]
		}
		switch {
		case v == Null:
			v = "NULL"
		case len(v) > 80:
			v = fmt.Sprintf("%q… (%d bytes)", v[:80], len(v))
		default:
			v = strconv.Quote(v)
		}
		fmt.Fprintf(&b, "%s=%s", name, v)
	}
	return b.String()
}

package laketest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDiff(t *testing.T) {
	a := Rows([]string{"id", "v"}, [][]string{{"1", "x"}, {"1", "x"}, {"2", Null}})
	b := Rows([]string{"v", "id"}, [][]string{{Null, "2"}, {"x", "1"}, {"x", "1"}})
	require.Empty(t, Diff(a, b), "neither the order of rows nor that of columns counts")

	b = Rows([]string{"id", "v"}, [][]string{{"1", "x"}, {"2", ""}, {"2", Null}})
	require.Equal(t, "3 rows against 3\n"+
		"1 rows only in the first:\n  1 × id=\"1\" v=\"x\"\n"+
		"1 rows only in the second:\n  1 × id=\"2\" v=\"\"\n", Diff(a, b), "equal rows are counted, NULL is not empty")

	b.Columns = []string{"id", "w"}
	require.Contains(t, Diff(a, b), "columns differ")
	require.NotEqual(t,
		Rows([]string{"a", "b"}, [][]string{{"x" + "\x1f", "y"}}).Count,
		Rows([]string{"a", "b"}, [][]string{{"x", "\x1f" + "y"}}).Count)
}

func TestCanonical(t *testing.T) {
	for _, c := range []struct {
		typ  string
		v    any
		want string
	}{
		{"double", "1.0E20", "1e+20"},
		{"double", "-inf", "-Infinity"},
		{"float", "0.10000000149011612", "0.1"},
		{"decimal(3, 1)", "1.0", "1.0"},
		{"string", nil, Null},
		{"list<double>", []any{"1.0", nil}, `["1",null]`},
		{"map<string, int>", []any{[]any{"b", "1"}, []any{"a", nil}}, `[["a",null],["b","1"]]`},
		{"struct<a: float, b: list<decimal(3, 1)>>", map[string]any{"a": "0.5", "b": []any{"1.0"}}, `{"a":"0.5","b":["1.0"]}`},
	} {
		got, err := canonical(c.typ, c.v)
		require.NoError(t, err, c.typ)
		require.Equal(t, c.want, got, c.typ)
	}
	_, err := canonical("int", []any{"1"})
	require.Error(t, err)
}

func TestPostgresText(t *testing.T) {
	for _, c := range []struct {
		typ     pgType
		v       string
		iceberg string
		want    string
	}{
		{pgType{name: "numeric", mod: -1}, "1.500", "string", "1.500"},
		{pgType{name: "numeric", mod: 12<<16 | 2 + 4}, "1.50", "decimal(12, 2)", "1.50"},
		{pgType{name: "numeric", mod: 2<<16 | (-3 & 0x7ff) + 4}, "1000", "decimal(5, 0)", "1000"},
		{pgType{name: "numeric", mod: 2<<16 | 4 + 4}, "0.0012", "decimal(4, 4)", "0.0012"},
		{pgType{name: "numeric", mod: 39<<16 | 4}, "1", "string", "1"},
		{pgType{name: "timestamp"}, "0044-03-15 12:00:00.5 BC", "timestamp", "-0043-03-15 12:00:00.500000"},
		{pgType{name: "date"}, "0001-03-15 BC", "date", "0000-03-15"},
		{pgType{name: "text", list: true}, `[0:1]={a,"b\"\\"}`, "list<string>", `["a","b\"\\"]`},
		{pgType{name: "bool", list: true}, `{{t,f},{NULL,t}}`, "list<boolean>", `[["true","false"],[null,"true"]]`},
	} {
		require.Equal(t, c.iceberg, c.typ.iceberg())
		got, err := c.typ.text(c.v)
		require.NoError(t, err, c.v)
		require.Equal(t, c.want, got)
	}
	for _, bad := range []string{"", "{", `{"`, "{1", "{1}x", "1"} {
		_, err := parseArray(bad, pgType{name: "int4"})
		require.Error(t, err, bad)
	}
}

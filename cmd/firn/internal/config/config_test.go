package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake/partition"
	"firn/lake/snapshot"
)

var allFlags = []string{"postgres", "warehouse", "s3-endpoint", "reader-s3-endpoint", "catalog", "listen", "token-file", "freshness", "state", "tables"}

// read parses a command line as a command does; file becomes firn.yaml.
func read(t *testing.T, file string, args ...string) (*Config, error) {
	t.Helper()
	set := pflag.NewFlagSet("firn", pflag.ContinueOnError)
	f := NewFlags(set, allFlags...)
	if file != "" {
		path := filepath.Join(t.TempDir(), "firn.yaml")
		require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
		args = append(args, "--config", path)
	}
	require.NoError(t, set.Parse(args))
	return f.Read()
}

func TestFileErrorsNameLineAndKey(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"unknown key", "listen: 127.0.0.1:1\nfreshnes: 5s\n", "line 2: freshnes: there is no such setting"},
		{"unknown key lists the others", "foo: 1\n", "format_version, compaction, grace, retention, table_settings"},
		{"unknown table key", "table_settings:\n  public.orders:\n    format: 3\n", "line 3: table_settings.public.orders.format: there is no such setting; there are format_version, mode, sort_by, bloom_filters, partition_by, allow_writes"},
		{"twice", "slot: a\nslot: b\n", "line 2: slot: it is set twice"},
		{"bad duration", "\nfreshness: fast\n", `line 2: freshness: want a duration such as 500ms, 10s or 2m, not "fast"`},
		{"number as duration", "freshness: 10\n", "line 1: freshness: want a duration"},
		{"bad size", "spill: lots\n", `line 1: spill: want a size such as 500MB or 20GB, not "lots"`},
		{"no size", "spill: 0\n", "line 1: spill: want a size above zero"},
		{"size too large", "spill: 99999999TB\n", "line 1: spill: the size"},
		{"bad version", "format_version: 1\n", `line 1: format_version: want 2 or 3, not "1"`},
		{"bad bool", "table_settings:\n  a.b:\n    allow_writes: maybe\n", `line 3: table_settings.a.b.allow_writes: want true or false, not "maybe"`},
		{"bad order", "table_settings:\n  a.b:\n    sort_by: at, id up\n", `line 3: table_settings.a.b.sort_by: after column id want asc or desc, nulls first or nulls last, not "up"`},
		{"no order", "table_settings:\n  a.b:\n    sort_by: ''\n", "line 3: table_settings.a.b.sort_by: want columns such as created_at"},
		{"unknown transform", "table_settings:\n  a.b:\n    partition_by: week(at)\n", "line 3: table_settings.a.b.partition_by: there is no transform week"},
		{"unknown transform in a list", "table_settings:\n  a.b:\n    partition_by: [a, bucket(b)]\n", "line 3: table_settings.a.b.partition_by: bucket takes a number above zero, then the column"},
		{"bad pattern", "table_settings:\n  '!a.b':\n    allow_writes: true\n", "line 2: table_settings.!a.b: want schema.table"},
		{"list wanted", "tables:\n  a: b\n", "line 2: tables: want a list"},
		{"list of maps", "tables:\n  - a: b\n", "line 2: tables: want a list of names"},
		{"mapping where a value is wanted", "slot:\n  a: b\n", "line 2: slot: want a single value"},
		{"no value", "slot:\n", "line 1: slot: it has no value"},
		{"not a mapping", "- a\n- b\n", "line 1: want settings"},
		{"two documents", "slot: a\n---\nslot: b\n", "want one document"},
		{"broken yaml", "slot: [a\n", "line 1"},
		{"tab", "slot: a\n\tlisten: b\n", "line 2"},
		{"retention of no epoch", "retention:\n  newest: 0\n", "retention: at least the newest epoch has to be kept"},
		{"retention of too many", "retention:\n  every_day: 365d\n", "retention: it keeps up to 533 epochs, and 199 are the most"},
		{"retention that is no age", "retention:\n  every_hour: 3 weeks\n", `line 2: retention.every_hour: want an age such as 90m, 48h or 30d, not "3 weeks"`},
		{"retention that is no number", "retention:\n  newest: all\n", `line 2: retention.newest: want a number, not "all"`},
		{"retention's keys", "retention:\n  days: 3d\n", "line 2: retention.days: there is no such setting; there are newest, every_minute, every_hour, every_day"},
		{"retention that is no mapping", "retention: 30d\n", "line 1: retention: want settings"},
		{"bad slot name", "slot: Firn-1\n", "slot: Firn-1: want at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(t, c.file)
			var wrong *Error
			require.ErrorAs(t, err, &wrong)
			require.Contains(t, err.Error(), c.want)
			if strings.Contains(c.want, "line") {
				require.Contains(t, err.Error(), "firn.yaml: ")
			}
		})
	}
	_, err := read(t, "", "--config", "/nowhere/firn.yaml")
	require.ErrorContains(t, err, "read configuration: open /nowhere/firn.yaml")
}

func TestFlagsGoBeforeEnvironmentBeforeFile(t *testing.T) {
	const file = "listen: 127.0.0.1:1\nfreshness: 1s\nstate: /file\ntables: [\"a.*\", \"!a.b\"]\nspill: 5MB\n" +
		"table_settings:\n  a.big*:\n    format_version: 3\n  \"*\":\n    allow_writes: true\n    sort_by: at, id desc nulls last\n    bloom_filters: [id, E Mail]\n"
	t.Setenv("FIRN_FRESHNESS", "2s")
	t.Setenv("FIRN_STATE", "/env")
	t.Setenv("FIRN_S3_ENDPOINT", "http://minio:9000")
	c, err := read(t, file, "--state", "/flag")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:1", c.Listen)
	require.Equal(t, Duration(2*time.Second), c.Freshness)
	require.Equal(t, "/flag", c.State)
	require.Equal(t, "http://minio:9000", c.S3Endpoint)
	require.Equal(t, []string{"a.*", "!a.b"}, c.Tables)
	require.Equal(t, Size(5<<20), c.Spill)
	require.Equal(t, Table{FormatVersion: 3, SortBy: snapshot.SortBy{}, BloomFilters: []string{}}, c.Settings("a", "bigger"))
	require.Equal(t, Table{FormatVersion: 2, AllowWrites: true, SortBy: snapshot.SortBy{{Name: "at"}, {Name: "id", Desc: true}}, BloomFilters: []string{"id", "E Mail"}}, c.Settings("a", "small"))

	c, err = read(t, "retention:\n  newest: 5\n  every_day: 60d\n")
	require.NoError(t, err)
	require.Equal(t, catalog.Retention{Newest: 5, Minutes: time.Hour, Hours: 48 * time.Hour, Days: 60 * 24 * time.Hour}, c.Retention.Rule())
	require.Equal(t, "the newest 5 epochs, one a minute for 1h, one an hour for 48h, one a day for 60d, and tagged ones", c.Retention.String())
	for age, want := range map[Age]string{0: "0s", Age(90 * time.Second): "1m30s", Age(10 * time.Minute): "10m", Age(100 * time.Minute): "100m", 30 * day: "30d"} {
		require.Equal(t, want, age.String())
		var back Age
		require.NoError(t, back.UnmarshalText([]byte(want)))
		require.Equal(t, age, back)
	}

	t.Setenv("FIRN_TABLES", "x.*,y.*")
	c, err = read(t, file)
	require.NoError(t, err)
	require.Equal(t, []string{"x.*", "y.*"}, c.Tables)

	t.Setenv("FIRN_FRESHNESS", "soon")
	_, err = read(t, file)
	require.ErrorContains(t, err, `FIRN_FRESHNESS: want a duration such as 500ms, 10s or 2m, not "soon"`)

	c, err = read(t, "# nothing set\n", "--freshness", "3s")
	require.NoError(t, err)
	require.Equal(t, Duration(3*time.Second), c.Freshness)
}

func TestPartitionBy(t *testing.T) {
	c, err := read(t, "table_settings:\n  a.text:\n    partition_by: day(at), bucket(16, id)\n  a.list:\n    partition_by: [day(at), \"bucket(16, id)\"]\n  a.none:\n    partition_by: []\n")
	require.NoError(t, err)
	require.Equal(t, "day(at), bucket(16, id)", partition.By(c.Settings("a", "text").PartitionBy).String())
	require.Equal(t, c.Settings("a", "text"), c.Settings("a", "list"))
	require.Empty(t, c.Settings("a", "none").PartitionBy)
}

func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		need func(*Config) error
		want string // empty: fine
	}{
		{"no database", nil, (*Config).NeedPostgres, "--postgres postgres://user@host/database, or set FIRN_POSTGRES"},
		{"broken connection string", []string{"--postgres", "postgres://u:secret@h:port/db"}, (*Config).NeedPostgres, "--postgres: "},
		{"database", []string{"--postgres", "host=h user=u dbname=d"}, (*Config).NeedPostgres, ""},
		{"no warehouse", nil, (*Config).NeedWarehouse, "which warehouse?"},
		{"strange scheme", []string{"--warehouse", "gs://b/p"}, (*Config).NeedWarehouse, "want s3://bucket/prefix or a folder"},
		{"no bucket", []string{"--warehouse", "s3:///"}, (*Config).NeedWarehouse, "names no bucket"},
		{"endpoint of a folder", []string{"--warehouse", "x", "--s3-endpoint", "http://h"}, (*Config).NeedWarehouse, "is for a warehouse on S3"},
		{"endpoint that is none", []string{"--warehouse", "s3://b", "--s3-endpoint", "h:9000"}, (*Config).NeedWarehouse, "want a URL"},
		{"bucket", []string{"--warehouse", "s3://b/p", "--s3-endpoint", "http://h:9000"}, (*Config).NeedWarehouse, ""},
		{"no port", []string{"--listen", "localhost"}, (*Config).NeedListen, "want host:port"},
		{"all addresses", []string{"--listen", ":8181"}, (*Config).NeedListen, "--token-file"},
		{"other address", []string{"--listen", "10.0.0.1:8181"}, (*Config).NeedListen, "--token-file"},
		{"other name", []string{"--listen", "db.internal:8181"}, (*Config).NeedListen, "--token-file"},
		{"other address with token", []string{"--listen", "0.0.0.0:8181", "--token-file", "t"}, (*Config).NeedListen, ""},
		{"localhost", []string{"--listen", "localhost:0"}, (*Config).NeedListen, ""},
		{"IPv6 loopback", []string{"--listen", "[::1]:0"}, (*Config).NeedListen, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := read(t, "", c.args...)
			require.NoError(t, err)
			err = c.need(cfg)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			var wrong *Error
			require.ErrorAs(t, err, &wrong)
			require.Contains(t, err.Error(), c.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}
	for _, c := range []struct{ args, want string }{
		{"--catalog http://nessie", "--catalog: an outside catalog comes in a later version"},
		{"--freshness 1ns", "--freshness 1ns: want between"},
		{"--tables !", "it names nothing"},
	} {
		_, err := read(t, "", strings.Fields(c.args)...)
		require.ErrorContains(t, err, c.want)
	}
}

func TestNames(t *testing.T) {
	name := func(pg, warehouse string) string {
		n, err := (&Config{Postgres: pg, Warehouse: warehouse}).ObjectName()
		require.NoError(t, err)
		require.Regexp(t, validName, n)
		return n
	}
	a := name("postgres://u@h/Shop-1", "s3://lake/shop")
	require.Regexp(t, "^firn_shop_1_[0-9a-f]{8}$", a)
	require.Equal(t, a, name("postgres://u@h/Shop-1", "s3a://lake/shop/"), "one place, written differently")
	require.NotEqual(t, a, name("postgres://u@h/Shop-1", "s3://lake/other"))
	require.Equal(t, name("postgres://u@h/d", "./x"), name("postgres://u@h/d", "x/"))
	name("postgres://u@h/"+strings.Repeat("ü", 100), "x")

	t.Setenv("XDG_STATE_HOME", "/state")
	one, err := (&Config{Postgres: "postgres://u@h/d", Warehouse: "x"}).StateDir()
	require.NoError(t, err)
	other, err := (&Config{Postgres: "postgres://u@h/d", Warehouse: "y"}).StateDir()
	require.NoError(t, err)
	require.Equal(t, "/state/firn", filepath.Dir(one))
	require.NotEqual(t, one, other)
}

func TestPasswordIsSeen(t *testing.T) {
	for text, want := range map[string]bool{
		"postgres://u:p@h/d": true, "postgres://u@h/d": false, "postgres://u:@h/d": false, "postgres://u@h/d?password=p": true,
		"host=h password=p": true, "host=h passfile=p": false, "host=h": false,
	} {
		require.Equal(t, want, HasPassword(text), text)
	}
	set := pflag.NewFlagSet("firn", pflag.ContinueOnError)
	t.Setenv("FIRN_POSTGRES", "postgres://u:p@h/d")
	f := NewFlags(set, allFlags...)
	_, err := f.Read()
	require.NoError(t, err)
	require.False(t, f.ShowsPassword(), "the environment is the right place")
	require.NoError(t, set.Parse([]string{"--postgres", "postgres://u:p@h/d"}))
	_, err = f.Read()
	require.NoError(t, err)
	require.True(t, f.ShowsPassword())
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"public.orders", "public.orders", true}, {"public.*", "public.orders", true}, {"public.*", "publicx.orders", false},
		{"orders", "any.orders", true}, {"*", "a.b", true}, {"a.b*d", "a.bcd", true}, {"a.b+", "a.bb", false}, {"a.*", "a.line\nbreak", true},
	} {
		require.Equal(t, c.want, glob(c.pattern, c.name), c)
	}
}

func FuzzFile(f *testing.F) {
	f.Add("table_settings:\n  a.b: &x\n    format_version: 3\n  c.d: *x\n")
	f.Add("tables: a\nspill: 1GB\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		if err := c.parse("firn.yaml", []byte(text)); err != nil {
			var wrong *Error
			require.ErrorAs(t, err, &wrong)
		}
	})
}

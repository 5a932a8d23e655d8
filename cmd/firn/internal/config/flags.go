package config

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Flags are a command's flags that end up in a Config.
type Flags struct {
	set     *pflag.FlagSet
	values  Config
	catalog string
	file    string
	names   []string
	typed   map[string]bool // given on the command line, where ps shows them
}

// NewFlags adds the named flags to a command's, and --config.
func NewFlags(set *pflag.FlagSet, names ...string) *Flags {
	f := &Flags{set: set, values: *Default(), names: names}
	v := &f.values
	for _, name := range names {
		switch name {
		case "postgres":
			set.StringVar(&v.Postgres, name, "", "database to mirror, postgres://user@host/database (password: FIRN_POSTGRES, PGPASSWORD or ~/.pgpass)")
		case "warehouse":
			set.StringVar(&v.Warehouse, name, "", "where the lake lies: s3://bucket/prefix or a folder")
		case "s3-endpoint":
			set.StringVar(&v.S3Endpoint, name, "", "URL of an S3 other than Amazon's, such as http://127.0.0.1:9000")
		case "reader-s3-endpoint":
			set.StringVar(&v.ReaderS3Endpoint, name, "", "the same store's URL as readers reach it, where that is another")
		case "catalog":
			set.StringVar(&f.catalog, name, "", "")
			_ = set.MarkHidden(name) // it exists: defined above
		case "listen":
			set.StringVar(&v.Listen, name, DefaultListen, "address of the catalog, /metrics and /status")
		case "token-file":
			set.StringVar(&v.TokenFile, name, "", "file with the bearer token that clients must present")
		case "freshness":
			set.Var(&v.Freshness, name, "how long a Postgres commit may wait to be seen in the lake")
		case "state":
			set.StringVar(&v.State, name, "", "local folder for row indexes and spilled changes (default ~/.local/state/firn/…)")
		case "tables":
			set.StringSliceVar(&v.Tables, name, nil, "tables to mirror, schema.table with * and leading ! to exclude; repeatable (default: every user schema)")
		default:
			panic("there is no flag --" + name)
		}
	}
	set.StringVar(&f.file, "config", "", "firn.yaml, for these and all other settings")
	return f
}

// Env is the environment variable of a flag.
func Env(flag string) string { return "FIRN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")) }

// Read brings flags, environment and file together and checks what holds for
// every command. Errors are *Error.
func (f *Flags) Read() (*Config, error) {
	f.typed = map[string]bool{}
	for _, name := range append([]string{"config"}, f.names...) {
		f.typed[name] = f.set.Changed(name)
		v, ok := os.LookupEnv(Env(name))
		if !ok || v == "" || f.set.Changed(name) {
			continue
		}
		if err := f.set.Set(name, v); err != nil {
			return nil, bad("%s: %v", Env(name), unwrapFlag(err))
		}
	}
	if f.set.Changed("catalog") {
		return nil, bad("--catalog: an outside catalog comes in a later version; firn serves its own at --listen")
	}
	c := Default()
	if f.file != "" {
		if err := c.ReadFile(f.file); err != nil {
			return nil, err
		}
	}
	f.over(c)
	return c, c.Check()
}

// ShowsPassword says whether the command line itself holds the database's
// password, for every user of the machine to see.
func (f *Flags) ShowsPassword() bool { return f.typed["postgres"] && HasPassword(f.values.Postgres) }

// over lays the flags that were set over c.
func (f *Flags) over(c *Config) {
	v := &f.values
	for _, name := range f.names {
		if !f.set.Changed(name) {
			continue
		}
		switch name {
		case "postgres":
			c.Postgres = v.Postgres
		case "warehouse":
			c.Warehouse = v.Warehouse
		case "s3-endpoint":
			c.S3Endpoint = v.S3Endpoint
		case "reader-s3-endpoint":
			c.ReaderS3Endpoint = v.ReaderS3Endpoint
		case "listen":
			c.Listen = v.Listen
		case "token-file":
			c.TokenFile = v.TokenFile
		case "freshness":
			c.Freshness = v.Freshness
		case "state":
			c.State = v.State
		case "tables":
			c.Tables = slices.Clone(v.Tables)
		}
	}
}

// unwrapFlag takes pflag's own words away from a value's error.
func unwrapFlag(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		err = u.Unwrap()
	}
}

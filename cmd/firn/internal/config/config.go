// Package config is what a user can set: flags, FIRN_… environment variables
// and firn.yaml, in that order of precedence, brought into one struct.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"firn/lake/snapshot"
)

// Config is all that firn.yaml may hold. The keys that are flags too have the
// flag's meaning, and a flag or its environment variable goes before the file.
//
//	postgres: postgres://firn@db.internal/shop
//	warehouse: s3://lake/shop
//	tables: ["public.*", "!public.audit_*"]
//	freshness: 5s
//	table_settings:
//	  public.orders:
//	    format_version: 3
//	    partition_by: day(created_at), bucket(16, user_id)
type Config struct {
	// Postgres is the database to mirror: postgres://user@host/database, or
	// libpq's key=value form. The password belongs in FIRN_POSTGRES,
	// PGPASSWORD or ~/.pgpass.
	Postgres string `yaml:"postgres"`
	// Warehouse is where the lake lies: s3://bucket/prefix, or a folder.
	Warehouse string `yaml:"warehouse"`
	// S3Endpoint is the URL of an S3 other than Amazon's, such as MinIO's.
	S3Endpoint string `yaml:"s3_endpoint"`
	// ReaderS3Endpoint is the same store's URL as the catalog's clients reach
	// it, where that is another.
	ReaderS3Endpoint string `yaml:"reader_s3_endpoint"`
	// Listen is the address of catalog, metrics and status.
	Listen string `yaml:"listen"`
	// TokenFile holds the bearer token that clients of Listen must present.
	TokenFile string `yaml:"token_file"`
	// Freshness is how long a Postgres commit may wait to be seen in the lake.
	Freshness Duration `yaml:"freshness"`
	// State is a local folder for row indexes and spilled changes; it may be
	// lost at any time, and costs a rebuild then.
	State string `yaml:"state"`
	// Tables chooses what is mirrored: schema.table with * for any text, a
	// leading ! excludes. Empty: every table of every user schema.
	Tables []string `yaml:"tables"`

	// Name is the warehouse's name for clients of the catalog; by default the
	// database's.
	Name string `yaml:"name"`
	// Slot and Publication are firn's own objects in Postgres. By default
	// their names are made of the database's name and the warehouse's address.
	Slot        string `yaml:"slot"`
	Publication string `yaml:"publication"`
	// Spill bounds the local disk that parked changes may take.
	Spill Size `yaml:"spill"`
	// FormatVersion is the Iceberg format version of new tables, 2 or 3.
	FormatVersion FormatVersion `yaml:"format_version"`
	// Compaction rewrites small and worn data files beside the stream; false
	// leaves that to `firn compact`.
	Compaction bool `yaml:"compaction"`
	// Grace is how long a file stays that no kept epoch needs any more, for
	// readers in the middle of a query; 0s: for ever.
	Grace Duration `yaml:"grace"`
	// Retention says which epochs the lake goes on answering for, with all tables'
	// snapshots; tagged ones stay whatever it says.
	Retention Retention `yaml:"retention"`
	// TableSettings are settings of the tables that a pattern (schema.table,
	// * for any text) matches; of several the first in the file decides.
	TableSettings TableSettings `yaml:"table_settings"`
}

// Table is what can be set for one table.
type Table struct {
	// FormatVersion is the Iceberg format version that the table is created
	// with.
	FormatVersion FormatVersion `yaml:"format_version"`
	// Mode append mirrors only inserts and truncates: for a table whose rows
	// are never changed, or without a replica identity. What is updated or
	// deleted stays in the lake as it was inserted.
	Mode Mode `yaml:"mode"`
	// SortBy is the order of the rows within a data file, as in ORDER BY:
	// created_at, user_id desc nulls last. Rewrites sort by it, so it wants
	// compaction; a range of the first column is then found in few row groups.
	SortBy snapshot.SortBy `yaml:"sort_by"`
	// BloomFilters are of columns whose rows are looked up by equality and lie in
	// no order, such as a random key: [id, email].
	BloomFilters []string `yaml:"bloom_filters"`
	// PartitionBy splits the table's files by these terms, transforms of
	// columns, so that readers skip what they don't ask for: in one text
	// (day(created_at), bucket(16, user_id)) or as a list. Transforms are
	// identity (or the column alone), year, month, day, hour, bucket and
	// truncate. What is changed here holds for rows that land from the next
	// start on; no file is written again.
	PartitionBy PartitionBy `yaml:"partition_by"`
	// AllowWrites lets clients of the catalog change the table's rows. What
	// they change is then no longer what Postgres has.
	AllowWrites bool `yaml:"allow_writes"`
}

// Defaults of a Config.
const (
	DefaultListen        = "127.0.0.1:8181"
	DefaultFreshness     = Duration(10 * time.Second)
	DefaultSpill         = Size(20 << 30)
	DefaultFormatVersion = FormatVersion(2)
	DefaultGrace         = Duration(time.Hour)
)

// Default is a Config with nothing set by the user.
func Default() *Config {
	return &Config{Listen: DefaultListen, Freshness: DefaultFreshness, Spill: DefaultSpill, FormatVersion: DefaultFormatVersion, Compaction: true, Grace: DefaultGrace,
		Retention: DefaultRetention()}
}

// Error is something the user wrote that can't be used.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

func bad(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// NeedPostgres checks the connection string.
func (c *Config) NeedPostgres() error {
	if c.Postgres == "" {
		return bad("which database? Give --postgres postgres://user@host/database, or set FIRN_POSTGRES")
	}
	if _, err := c.connection(); err != nil {
		return err
	}
	return nil
}

// NeedWarehouse checks the warehouse's address.
func (c *Config) NeedWarehouse() error {
	if c.Warehouse == "" {
		return bad("which warehouse? Give --warehouse s3://bucket/prefix or --warehouse ./folder, or set FIRN_WAREHOUSE")
	}
	scheme, rest, ok := strings.Cut(c.Warehouse, "://")
	switch {
	case ok && scheme != "s3" && scheme != "s3a" && scheme != "file":
		return bad("--warehouse %s: want s3://bucket/prefix or a folder", c.Warehouse)
	case ok && strings.Trim(rest, "/") == "":
		return bad("--warehouse %s: it names no bucket", c.Warehouse)
	}
	for name, v := range map[string]string{"--s3-endpoint": c.S3Endpoint, "--reader-s3-endpoint": c.ReaderS3Endpoint} {
		if v == "" {
			continue
		}
		if u, err := url.Parse(v); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return bad("%s %s: want a URL such as http://127.0.0.1:9000", name, v)
		}
		if !c.OnS3() {
			return bad("%s is for a warehouse on S3, and %s is a folder", name, c.Warehouse)
		}
	}
	return nil
}

// NeedListen checks the listener's address: others than this machine may use
// it only with a token.
func (c *Config) NeedListen() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return bad("--listen %s: want host:port, such as 127.0.0.1:8181", c.Listen)
	}
	ip := net.ParseIP(host)
	if c.TokenFile == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return bad("--listen %s can be reached from other machines: give --token-file with the token that clients must present, or listen on 127.0.0.1", c.Listen)
	}
	return nil
}

// Check checks the settings that hold for every command.
func (c *Config) Check() error {
	if c.Grace != 0 && c.Grace < Duration(time.Second) {
		return bad("grace %s: want 0s, which keeps everything, or at least 1s (an hour is the default)", c.Grace)
	}
	if err := c.Retention.Rule().Check(); err != nil {
		return bad("retention: %v", err)
	}
	if c.Freshness < Duration(10*time.Millisecond) || c.Freshness > Duration(24*time.Hour) {
		return bad("--freshness %s: want between 10ms and 24h", c.Freshness)
	}
	for _, n := range []struct{ key, name string }{{"slot", c.Slot}, {"publication", c.Publication}} {
		if n.name != "" && !validName.MatchString(n.name) {
			return bad("%s: %s: want at most %d lower-case letters, digits and underscores", n.key, n.name, nameMax)
		}
	}
	for _, p := range c.Tables {
		if strings.Trim(p, "! ") == "" {
			return bad("--tables %q: it names nothing; want schema.table, where * stands for any text and a leading ! excludes", p)
		}
	}
	return nil
}

// connection reads the connection string. Its error never shows the password.
func (c *Config) connection() (*pgconn.Config, error) {
	p, err := pgconn.ParseConfig(c.Postgres)
	if err != nil {
		return nil, bad("--postgres: %v; want postgres://user@host/database", err)
	}
	return p, nil
}

// Database is the name of the database, by the connection string and its
// defaults; NeedPostgres has passed.
func (c *Config) Database() string {
	p, err := c.connection()
	if err != nil {
		return ""
	}
	if p.Database == "" {
		return p.User
	}
	return p.Database
}

// Address is the database's host, port and name, for people.
func (c *Config) Address() string {
	p, err := c.connection()
	if err != nil {
		return ""
	}
	if strings.HasPrefix(p.Host, "/") {
		return fmt.Sprintf("%s at %s", c.Database(), p.Host)
	}
	return fmt.Sprintf("%s at %s", c.Database(), net.JoinHostPort(p.Host, fmt.Sprint(p.Port)))
}

// HasPassword says whether the connection string itself holds a password.
func HasPassword(connection string) bool {
	if u, err := url.Parse(connection); err == nil && u.User != nil {
		if p, ok := u.User.Password(); ok && p != "" {
			return true
		}
		return u.Query().Has("password")
	}
	return inlinePassword.MatchString(connection)
}

var inlinePassword = regexp.MustCompile(`(^|[\s?&])password\s*=\s*\S`)

// OnS3 says whether the warehouse is a bucket.
func (c *Config) OnS3() bool {
	return strings.HasPrefix(c.Warehouse, "s3://") || strings.HasPrefix(c.Warehouse, "s3a://")
}

// Folder is the warehouse's absolute path, empty on S3.
func (c *Config) Folder() (string, error) {
	if c.OnS3() {
		return "", nil
	}
	path, err := filepath.Abs(strings.TrimPrefix(strings.TrimPrefix(c.Warehouse, "file://"), "file:"))
	if err != nil {
		return "", fmt.Errorf("find folder %s: %w", c.Warehouse, err)
	}
	return path, nil
}

// Place is the warehouse's address in one form, whichever way it was written.
func (c *Config) Place() (string, error) {
	if c.OnS3() {
		_, rest, _ := strings.Cut(c.Warehouse, "://")
		return "s3://" + strings.Trim(rest, "/"), nil
	}
	return c.Folder()
}

// nameMax leaves room, in Postgres' 63 bytes, for what slot and publication
// have appended ("_load", "_append").
const nameMax = 55

var validName = regexp.MustCompile(fmt.Sprintf(`^[a-z0-9_]{1,%d}$`, nameMax))

// ObjectName is the default name of slot and publication: that of the
// database, for people, and a hash of the warehouse, so that two lakes of one
// database don't meet.
func (c *Config) ObjectName() (string, error) {
	place, err := c.Place()
	if err != nil {
		return "", err
	}
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, c.Database())
	return "firn_" + clean[:min(len(clean), 40)] + "_" + digest(place)[:8], nil
}

// StateDir is the folder for what is local: State, or one of the warehouse's
// and database's own under $XDG_STATE_HOME.
func (c *Config) StateDir() (string, error) {
	if c.State != "" {
		dir, err := filepath.Abs(c.State)
		if err != nil {
			return "", fmt.Errorf("find state folder %s: %w", c.State, err)
		}
		return dir, nil
	}
	base := os.Getenv("XDG_STATE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", errors.Join(bad("there is no home folder to keep state in: give --state"), err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	place, err := c.Place()
	if err != nil {
		return "", err
	}
	return filepath.Join(base, "firn", digest(c.S3Endpoint, place, c.Database())[:16]), nil
}

func digest(parts ...string) string {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(h[:])
}

// Settings are those of one table: of the first pattern that matches it.
func (c *Config) Settings(schema, table string) Table {
	out := Table{FormatVersion: c.FormatVersion, SortBy: snapshot.SortBy{}, BloomFilters: []string{}}
	for _, s := range c.TableSettings {
		if !glob(s.Pattern, schema+"."+table) {
			continue
		}
		out.AllowWrites, out.Mode, out.PartitionBy = s.AllowWrites, s.Mode, s.PartitionBy
		if s.SortBy != nil {
			out.SortBy = s.SortBy
		}
		if s.BloomFilters != nil {
			out.BloomFilters = s.BloomFilters
		}
		if s.FormatVersion != 0 {
			out.FormatVersion = s.FormatVersion
		}
		break
	}
	return out
}

// glob matches s against a pattern in which * stands for any text; one
// without a dot is a table of any schema.
func glob(pattern, s string) bool {
	if !strings.Contains(pattern, ".") {
		pattern = "*." + pattern
	}
	parts := strings.Split(pattern, "*")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	ok, err := regexp.MatchString(`(?s)\A`+strings.Join(parts, ".*")+`\z`, s)
	return ok && err == nil
}

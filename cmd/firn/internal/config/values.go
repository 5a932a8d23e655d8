package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"firn/lake/partition"
)

// Duration is a time.Duration in Go's form, such as 10s or 1m30s.
type Duration time.Duration

// UnmarshalText reads it.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf("want a duration such as 500ms, 10s or 2m, not %q", b)
	}
	*d = Duration(v)
	return nil
}

func (d Duration) String() string { return time.Duration(d).String() }

// Set and Type make it a flag's value.
func (d *Duration) Set(s string) error { return d.UnmarshalText([]byte(s)) }

// Type names it in help.
func (d *Duration) Type() string { return "duration" }

// Size is a number of bytes, such as 500MB or 20GB (powers of 1024, as
// Postgres has them).
type Size int64

var sizeForm = regexp.MustCompile(`^([0-9]+)\s*(|B|kB|KB|MB|GB|TB)$`)

// UnmarshalText reads it.
func (s *Size) UnmarshalText(b []byte) error {
	m := sizeForm.FindSubmatch(b)
	if m == nil {
		return fmt.Errorf("want a size such as 500MB or 20GB, not %q", b)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	shift := map[byte]uint{'k': 10, 'K': 10, 'M': 20, 'G': 30, 'T': 40}[(string(m[2]) + "B")[0]]
	if err != nil || n > 1<<62>>shift {
		return fmt.Errorf("the size %q is too large", b)
	}
	if n == 0 {
		return fmt.Errorf("want a size above zero, not %q", b)
	}
	*s = Size(n << shift)
	return nil
}

// Mode is how a table is mirrored: "" row by row, or Append.
type Mode string

// Append is the mode of a table of which only inserts and truncates are
// mirrored.
const Append Mode = "append"

// UnmarshalText accepts append and mirror, the default.
func (m *Mode) UnmarshalText(b []byte) error {
	switch string(b) {
	case "append":
		*m = Append
	case "mirror":
		*m = ""
	default:
		return fmt.Errorf("want append or mirror, not %q", b)
	}
	return nil
}

// FormatVersion is an Iceberg format version.
type FormatVersion int

// UnmarshalText reads it.
func (v *FormatVersion) UnmarshalText(b []byte) error {
	switch string(b) {
	case "2":
		*v = 2
	case "3":
		*v = 3
	default:
		return fmt.Errorf("want 2 or 3, not %q", b)
	}
	return nil
}

// PartitionBy is what a table is partitioned by.
type PartitionBy partition.By

// UnmarshalText reads it.
func (p *PartitionBy) UnmarshalText(b []byte) error {
	by, err := partition.Parse(string(b))
	*p = PartitionBy(by)
	return err
}

// TableSettings are in the file's order.
type TableSettings []PatternSettings

// PatternSettings are the settings of the tables that Pattern matches.
type PatternSettings struct {
	Pattern string
	Table
}

// checkPattern says what is wrong with a pattern of table_settings.
func checkPattern(p string) error {
	if strings.TrimSpace(p) == "" || strings.HasPrefix(p, "!") {
		return fmt.Errorf("want schema.table, where * stands for any text, not %q", p)
	}
	return nil
}

// Package wal decodes Postgres' logical replication protocol (pgoutput): bytes
// in, messages out. It does no I/O and needs the standard library only.
package wal

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a byte position in the write-ahead log.
type LSN uint64

// ParseLSN reads the form Postgres prints, such as 16/B374D848.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("parse LSN %q: want the form 16/B374D848", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: want the form 16/B374D848", s)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("parse LSN %q: want the form 16/B374D848", s)
	}
	return LSN(h<<32 | l), nil
}

// String is the form Postgres prints.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalText and UnmarshalText carry the printed form in JSON and YAML.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the printed form.
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	if err == nil {
		*l = v
	}
	return err
}

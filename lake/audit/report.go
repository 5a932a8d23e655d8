package audit

import (
	"strings"

	"firn/wal"
)

// What Verify found of a table.
const (
	Equal     = "equal"
	Different = "different"
	Unchecked = "unchecked" // it is skipped, quarantined, loading …: TableReport.Reason
	Failed    = "failed"    // one of the sides could not be read: TableReport.Reason
)

// Report is what Verify found.
type Report struct {
	// LSN is where both sides stood: they have the commits whose record starts
	// before it. Tables that were altered meanwhile have a later one.
	LSN    wal.LSN       `json:"lsn"`
	Epoch  uint64        `json:"epoch"` // of the lake, that was compared
	Tables []TableReport `json:"tables"`
}

// Count is the number of tables with a result.
func (r *Report) Count(result string) int {
	n := 0
	for _, t := range r.Tables {
		if t.Result == result {
			n++
		}
	}
	return n
}

// TableReport is what was found of one table.
type TableReport struct {
	Name   string  `json:"name"`
	Result string  `json:"result"` // one of the constants above
	Reason string  `json:"reason,omitempty"`
	LSN    wal.LSN `json:"lsn"`

	Postgres Side `json:"postgres"`
	Lake     Side `json:"lake"`
	// Schema lists how the columns differ.
	Schema []string `json:"schema,omitempty"`
	Rows   *Rows    `json:"rows,omitempty"` // nil: the rows are equal
	// Seconds is how long the comparison took.
	Seconds float64 `json:"seconds"`
}

// Side is one side's rows.
type Side struct {
	Rows     int64  `json:"rows"`
	Checksum string `json:"checksum"` // 128 bits in hexadecimal, of all rows in any order
}

// Rows is how the rows differ.
type Rows struct {
	OnlyPostgres Kind `json:"only_in_postgres"`
	OnlyLake     Kind `json:"only_in_lake"`
	Changed      Kind `json:"different"` // same key, other values, or not as often
	// Complete is false where only a part of the table was searched for them,
	// for want of memory: there are more.
	Complete bool `json:"complete"`
}

// Kind is one way in which rows differ.
type Kind struct {
	Count int64    `json:"count"`
	Keys  []string `json:"keys,omitempty"` // the first of them: "id=5"; without a key the row
}

func (k *Kind) add(key string, n int64, keysMax int) {
	k.Count += n
	if len(k.Keys) < keysMax {
		k.Keys = append(k.Keys, key)
	}
}

func compareNames(a, b string) int { return strings.Compare(a, b) }

package slot

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// CTIDRange is a part of a table's heap: the pages from From up to To. All
// ranges of one list together hold every row of the snapshot once.
type CTIDRange struct {
	Relation TableName // the table, or one of its partitions
	From     uint32
	To       uint32 // 0: to the end
	Pages    int64  // about how many there are, for a progress bar
}

// minRangePages keeps small tables whole: a connection costs more than 16 MB.
const minRangePages = 2048

// ranges cuts a table into about n ranges, by the sizes it has now; partitions
// are cut each for itself and small ones left whole. conn has the table's lock:
// asking for a size waits for an ALTER otherwise. A partition whose size isn't
// there has the planner's: a range's size is a matter of balance, not of truth,
// for the last range of a relation is open.
func ranges(ctx context.Context, conn *pgconn.PgConn, t *Table, n int) ([]CTIDRange, error) {
	leaves := t.Leaves
	if !t.Partitioned {
		leaves = []Leaf{{OID: t.OID, Schema: t.Schema, Name: t.Name, Pages: t.Pages}}
	}
	pages := make(map[uint32]int64, len(leaves))
	oids := make([]string, 0, len(leaves))
	for _, l := range leaves {
		pages[l.OID] = l.Pages
		oids = append(oids, strconv.FormatUint(uint64(l.OID), 10))
	}
	rows, err := run(ctx, conn, `
		SELECT o, pg_relation_size(o) / current_setting('block_size')::bigint
		FROM unnest('{`+strings.Join(oids, ",")+`}'::oid[]) o WHERE pg_relation_size(o) IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("read the table's size: %w", err)
	}
	for _, r := range rows {
		oid, err := strconv.ParseUint(string(r[0]), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the table's size: %w", err)
		}
		if pages[uint32(oid)], err = strconv.ParseInt(string(r[1]), 10, 64); err != nil {
			return nil, fmt.Errorf("read the table's size: %w", err)
		}
	}
	var total int64
	for _, p := range pages {
		total += p
	}
	per := max(total/int64(max(n, 1))+1, minRangePages)
	var out []CTIDRange
	for _, l := range leaves {
		out = appendRanges(out, TableName{Schema: l.Schema, Name: l.Name}, pages[l.OID], per)
	}
	return out, nil
}

func appendRanges(out []CTIDRange, rel TableName, pages, per int64) []CTIDRange {
	parts := max((pages+per/2)/per, 1)
	for i := range parts {
		r := CTIDRange{Relation: rel, From: uint32(pages * i / parts), To: uint32(pages * (i + 1) / parts)}
		r.Pages = int64(r.To - r.From)
		if i == parts-1 {
			r.To = 0
		}
		out = append(out, r)
	}
	return out
}

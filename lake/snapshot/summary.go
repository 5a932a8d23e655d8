package snapshot

import (
	"strconv"
	"time"

	"firn/lake"
)

// totals counts the live files of a snapshot, or those a commit adds or
// removes. As in Iceberg, records are rows as written, dead ones included, and
// sizes are of contents: a deletion vector counts for its blob.
type totals struct {
	dataFiles, records     int64
	deleteFiles, deletes   int64
	positionFiles, vectors int64
	bytes                  int64
}

func (t *totals) add(e *entry, d *deleteFile, sign int64) {
	t.bytes += sign * e.contentBytes
	if d == nil {
		t.dataFiles += sign
		t.records += sign * e.fileRows
		return
	}
	t.deleteFiles += sign
	t.deletes += sign * e.fileRows
	if d.vector {
		t.vectors += sign
	} else {
		t.positionFiles += sign
	}
}

// operation names what a commit did to the rows; replace says that it only moved
// them.
func operation(replace bool, added, removed totals) string {
	switch {
	case replace:
		return "replace"
	case added.deleteFiles == 0 && removed.dataFiles == 0:
		return "append"
	case added.dataFiles == 0:
		return "delete"
	default:
		return "overwrite"
	}
}

const kindRewrite = "rewrite"

// summary is a snapshot's summary: Iceberg's counts and the firn.* keys.
func (p *prepared) summary(s lake.Stamp, added, removed, total totals) map[string]string {
	out := map[string]string{"operation": operation(p.moves, added, removed)}
	num := func(key string, n int64) { out[key] = strconv.FormatInt(n, 10) }
	some := func(key string, n int64) {
		if n != 0 {
			num(key, n)
		}
	}
	some("added-data-files", added.dataFiles)
	some("added-records", added.records)
	some("added-files-size", added.bytes)
	some("added-delete-files", added.deleteFiles)
	some("added-position-delete-files", added.positionFiles)
	some("added-position-deletes", added.deletes)
	some("added-dvs", added.vectors)
	some("deleted-data-files", removed.dataFiles)
	some("deleted-records", removed.records)
	some("removed-files-size", removed.bytes)
	some("removed-delete-files", removed.deleteFiles)
	some("removed-position-delete-files", removed.positionFiles)
	some("removed-position-deletes", removed.deletes)
	some("removed-dvs", removed.vectors)
	num("total-data-files", total.dataFiles)
	num("total-records", total.records)
	num("total-files-size", total.bytes)
	num("total-delete-files", total.deleteFiles)
	num("total-position-deletes", total.deletes)
	num("total-equality-deletes", 0)
	num("firn.epoch", int64(s.Epoch))
	out["firn.lsn"] = s.LSN.String()
	if s.XID != 0 {
		num("firn.xid", int64(s.XID))
	}
	if !s.CommitTime.IsZero() {
		out["firn.commit-time"] = s.CommitTime.UTC().Format(time.RFC3339Nano)
	}
	if s.Source != "" {
		out["firn.source"] = s.Source
	}
	if p.moves {
		s.Kind = kindRewrite
	}
	if s.Kind != "" {
		out["firn.kind"] = s.Kind
	}
	if p.rewrites > 0 {
		num("firn.rewrite-rows", p.carried.Rows)
		out["firn.rewrite-checksum"] = p.carried.Checksum()
	}
	return out
}

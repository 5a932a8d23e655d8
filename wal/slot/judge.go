package slot

import (
	"fmt"
	"slices"
)

// judge sets Key, Usable and Reason: whether every row that changes can be told
// from the others by what the stream sends of it.
func judge(f *facts, indexes map[uint32][]keyIndex) {
	t := &f.table
	if t.Append {
		judgeAppend(f)
		return
	}
	key, reason := identity(t.ReplicaIdentity, indexes[t.OID])
	for _, name := range key {
		i := slices.IndexFunc(t.Columns, func(c Column) bool { return c.Name == name })
		if i < 0 {
			reason = fmt.Sprintf("its key column %s can't be found", name)
			break
		}
		t.Key = append(t.Key, i)
	}
	switch {
	case len(t.Columns) == 0:
		reason = "it has no columns"
	case f.persistence == 'u':
		reason = "it is unlogged, so its changes are not in the WAL; ALTER TABLE … SET LOGGED"
	}
	for _, l := range f.leaves {
		if reason != "" {
			break
		}
		reason = judgeLeaf(t, l, key, indexes[l.OID])
	}
	t.Reason, t.Usable = reason, reason == ""
}

// judgeAppend is judge for a table of which only inserts and truncates are
// wanted: nothing has to tell its rows apart.
func judgeAppend(f *facts) {
	t := &f.table
	t.ReplicaIdentity = 'n'
	switch {
	case len(t.Columns) == 0:
		t.Reason = "it has no columns"
	case f.persistence == 'u':
		t.Reason = "it is unlogged, so its changes are not in the WAL; ALTER TABLE … SET LOGGED"
	}
	for _, l := range f.leaves {
		if l.kind == 'f' || l.persistence == 'u' {
			t.Reason = fmt.Sprintf("its partition %s.%s is foreign or unlogged, so its rows are not in the WAL", l.Schema, l.Name)
		}
	}
	t.Usable = t.Reason == ""
}

// judgeLeaf compares a partition with its root: Postgres logs old rows by the
// partition's replica identity, but describes them by the root's.
func judgeLeaf(t *Table, l leafFacts, rootKey []string, indexes []keyIndex) string {
	name := l.Schema + "." + l.Name
	switch {
	case l.kind == 'f':
		return fmt.Sprintf("its partition %s is a foreign table, whose rows are not in the WAL", name)
	case l.persistence == 'u':
		return fmt.Sprintf("its partition %s is unlogged", name)
	case l.identity != t.ReplicaIdentity:
		return fmt.Sprintf("its partition %s has REPLICA IDENTITY %s, the table itself %s; partitions don't inherit it, so ALTER TABLE … REPLICA IDENTITY each",
			name, identityName(l.identity), identityName(t.ReplicaIdentity))
	}
	key, reason := identity(l.identity, indexes)
	if reason != "" {
		return fmt.Sprintf("its partition %s can't be mirrored: %s", name, reason)
	}
	if t.ReplicaIdentity != 'f' && !sameSet(key, rootKey) {
		return fmt.Sprintf("its partition %s identifies rows by other columns than the table itself", name)
	}
	return ""
}

// identity returns the columns that identify a row, or why there are none.
// With FULL the primary key serves if there is one, and rows are compared whole
// if not: both are fit.
func identity(kind byte, indexes []keyIndex) (columns []string, reason string) {
	pk := slices.IndexFunc(indexes, func(x keyIndex) bool { return x.primary })
	switch kind {
	case 'f':
		// A deferrable key may be doubled in the middle of a transaction.
		if pk >= 0 && indexes[pk].immediate && indexes[pk].valid {
			return indexes[pk].columns, ""
		}
		return nil, ""
	case 'i':
		i := slices.IndexFunc(indexes, func(x keyIndex) bool { return x.identity })
		if i < 0 || !indexes[i].valid {
			return nil, "the index of its REPLICA IDENTITY is gone or invalid; choose another, or set REPLICA IDENTITY FULL"
		}
		return indexes[i].columns, ""
	case 'n':
		return nil, "its REPLICA IDENTITY is NOTHING; set it to DEFAULT with a primary key, to an index or to FULL, or mirror it with mode: append"
	}
	switch {
	case pk < 0:
		return nil, "it has no primary key; add one, set REPLICA IDENTITY FULL, or mirror it with mode: append"
	case !indexes[pk].immediate:
		return nil, "its primary key is deferrable, which is no replica identity; set REPLICA IDENTITY FULL, or to another unique index"
	case !indexes[pk].valid:
		return nil, "its primary key's index is invalid; REINDEX it"
	}
	return indexes[pk].columns, ""
}

func identityName(b byte) string {
	switch b {
	case 'n':
		return "NOTHING"
	case 'f':
		return "FULL"
	case 'i':
		return "USING INDEX"
	}
	return "DEFAULT"
}

func sameSet(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !slices.Contains(b, x) {
			return false
		}
	}
	return true
}

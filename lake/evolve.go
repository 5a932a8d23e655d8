package lake

import (
	"fmt"
	"slices"

	"firn/wal"
)

// Evolution is what a Relation message asks of a table.
type Evolution struct {
	Layout *Layout // the layout to go on with; the old one if nothing changed
	Wire   []int   // the Relation's columns in order → index into Layout.Columns
	Resync string  // not empty: only a fresh load gets it right; why
}

// Evolve fits rel, the stream's past, to old by what the catalog says now.
// Names decide where they are known; attribute numbers tell a rename from a
// drop and add. What they leave open is not guessed: it asks for a resync.
func Evolve(old *Layout, rel *wal.Relation, now *wal.Table) (Evolution, error) {
	if now == nil { // dropped since: the rows before that are still to be taken, if the shape is known
		if wire, ok := old.wire(rel); ok {
			return Evolution{Layout: old, Wire: wire}, nil
		}
		return Evolution{Layout: old, Resync: "its columns changed and it has been dropped since"}, nil
	}
	atts, ok := attributes(old, rel, now)
	if !ok {
		return Evolution{Layout: old, Resync: "its columns changed several times at once"}, nil
	}
	if old.replaced(rel, atts) {
		return Evolution{Layout: old, Resync: "a column was dropped and another of its name and type added"}, nil
	}
	next := &Layout{OID: old.OID, Identity: rel.ReplicaIdentity, LastField: old.LastField,
		FileNodes: old.FileNodes, TruncatedBy: old.TruncatedBy, Membership: old.Membership}
	for i, c := range rel.Columns {
		col := Column{AttNum: atts[i], Name: c.Name}
		was, is := old.attr(atts[i]), catalogColumn(now, atts[i])
		switch {
		case is != nil && is.Type.OID == c.TypeOID && (is.Type.Mod == c.TypeMod || is.Type.Kind == 'd'):
			col.Type = is.Type
		case was != nil && was.Type.OID == c.TypeOID && (was.Type.Mod == c.TypeMod || was.Type.Kind == 'd'):
			col.Type = was.Type
		default:
			return Evolution{Layout: old, Resync: fmt.Sprintf("the type of column %s changed more than once", c.Name)}, nil
		}
		if err := next.place(&col, old); err != nil {
			return Evolution{}, err
		}
		if was == nil && is != nil && is.HasMissing {
			return Evolution{Layout: old, Resync: fmt.Sprintf("column %s was added with a default for the rows that were there", c.Name)}, nil
		}
		if was != nil && was.FieldID != col.FieldID {
			return Evolution{Layout: old, Resync: fmt.Sprintf("column %s changed from %s to %s", c.Name, was.Type.Name, col.Type.Name)}, nil
		}
		next.Columns = append(next.Columns, col)
	}
	next.Key = old.Key
	if now.Append {
		next.Identity = 'n'
	}
	if rel.ReplicaIdentity == now.ReplicaIdentity {
		next.Key = nil
		for _, k := range now.Key {
			next.Key = append(next.Key, now.Columns[k].AttNum)
		}
	}
	if !slices.Equal(next.Key, old.Key) || (next.Identity == 'f') != (old.Identity == 'f') && len(next.Key) == 0 {
		return Evolution{Layout: old, Resync: "its replica identity changed"}, nil
	}
	next.inherit(old) // a partition field ends with its column
	if err := next.init(); err != nil {
		return Evolution{Layout: old, Resync: err.Error()}, nil
	}
	if was, is := newRowKey(old), newRowKey(next); was != nil && was.layout(old) != is.layout(next) {
		return Evolution{Layout: old, Resync: "the type of a key column changed"}, nil
	}
	if _, whole := old.indexed(); whole && slices.ContainsFunc(old.Columns, func(c Column) bool { return next.attr(c.AttNum) == nil }) {
		return Evolution{Layout: old, Resync: "a column was dropped, and without a key rows are found by all their columns"}, nil
	}
	wire := make([]int, len(rel.Columns))
	for i := range wire {
		wire[i] = i
	}
	if next.sameAs(old) {
		if w, ok := old.wire(rel); ok {
			return Evolution{Layout: old, Wire: w}, nil
		}
	}
	return Evolution{Layout: next, Wire: wire}, nil
}

// replaced says whether rel looks like l while its columns are others by now:
// the stream does not tell whether rel is from before that or from after.
func (l *Layout) replaced(rel *wal.Relation, atts []int16) bool {
	wire, same := l.wire(rel)
	for i := range wire {
		same = same && wire[i] == i
	}
	return same && !slices.EqualFunc(l.Columns, atts, func(c Column, att int16) bool { return c.AttNum == att })
}

// wire maps rel's columns to l's by name and type; false if they are not the same set.
func (l *Layout) wire(rel *wal.Relation) ([]int, bool) {
	if len(rel.Columns) != len(l.Columns) {
		return nil, false
	}
	wire := make([]int, len(rel.Columns))
	for i, c := range rel.Columns {
		at := slices.IndexFunc(l.Columns, func(k Column) bool {
			return k.Name == c.Name && k.Type.OID == c.TypeOID && (k.Type.Mod == c.TypeMod || k.Type.Kind == 'd')
		})
		if at < 0 {
			return nil, false
		}
		wire[i] = at
	}
	return wire, true
}

func (l *Layout) sameAs(o *Layout) bool {
	return l.Identity == o.Identity && slices.EqualFunc(l.Columns, o.Columns, func(a, b Column) bool {
		return a.AttNum == b.AttNum && a.FieldID == b.FieldID && a.Name == b.Name && a.Type.OID == b.Type.OID && a.Type.Mod == b.Type.Mod
	})
}

func catalogColumn(t *wal.Table, att int16) *wal.TableColumn {
	for i := range t.Columns {
		if t.Columns[i].AttNum == att {
			return &t.Columns[i]
		}
	}
	return nil
}

// attributes finds the attribute number of each of rel's columns. Columns
// stand in a Relation in attribute order, so a name that neither the old
// layout nor the catalog knows can still be placed when just one number fits
// between its neighbours.
func attributes(old *Layout, rel *wal.Relation, now *wal.Table) ([]int16, bool) {
	if now.OID != old.OID || rel.ID != old.OID {
		return nil, false
	}
	atts := make([]int16, len(rel.Columns))
	var live []wal.TableColumn
	for _, c := range now.Columns {
		if streamed(c) {
			live = append(live, c)
		}
	}
	same := len(live) == len(rel.Columns)
	for i := 0; same && i < len(live); i++ {
		same = live[i].Name == rel.Columns[i].Name && live[i].Type.OID == rel.Columns[i].TypeOID
		atts[i] = live[i].AttNum
	}
	if same {
		return atts, true
	}
	// The catalog has moved on: by name, the old layout first.
	clear(atts)
	taken := map[int16]bool{}
	for i, c := range rel.Columns {
		if was := old.named(c.Name); was != nil {
			atts[i] = was.AttNum
		} else if at := slices.IndexFunc(live, func(k wal.TableColumn) bool { return k.Name == c.Name }); at >= 0 {
			atts[i] = live[at].AttNum
		}
		if atts[i] != 0 && taken[atts[i]] {
			return nil, false
		}
		taken[atts[i]] = true
	}
	for i := range atts {
		if atts[i] != 0 {
			continue
		}
		lo, hi := int16(0), now.MaxAttNum+1
		if i > 0 {
			lo = atts[i-1]
		}
		if i+1 < len(atts) {
			if hi = atts[i+1]; hi == 0 {
				return nil, false // two unknown neighbours
			}
		}
		var fits []int16
		for a := lo + 1; a < hi; a++ {
			if !taken[a] && (old.attr(a) != nil || a > old.maxAtt()) {
				fits = append(fits, a)
			}
		}
		if len(fits) != 1 {
			return nil, false
		}
		atts[i] = fits[0]
		taken[fits[0]] = true
	}
	return atts, slices.IsSorted(atts)
}

func (l *Layout) maxAtt() int16 {
	var m int16
	for _, c := range l.Columns {
		m = max(m, c.AttNum)
	}
	return m
}

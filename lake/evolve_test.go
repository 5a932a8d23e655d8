package lake

import (
	"testing"

	"github.com/stretchr/testify/require"

	"firn/wal"
)

// attr is one column of a table in these tests.
type attr struct {
	num     int16
	name    string
	typ     string
	missing bool // HasMissing
}

var testTypes = map[string]wal.TypeInfo{
	"int4": {OID: 23, Mod: -1, Schema: "pg_catalog", Name: "int4", Kind: 'b'},
	"int8": {OID: 20, Mod: -1, Schema: "pg_catalog", Name: "int8", Kind: 'b'},
	"text": {OID: 25, Mod: -1, Schema: "pg_catalog", Name: "text", Kind: 'b'},
	"v10":  {OID: 1043, Mod: 14, Schema: "pg_catalog", Name: "varchar", Kind: 'b'},
	"v20":  {OID: 1043, Mod: 24, Schema: "pg_catalog", Name: "varchar", Kind: 'b'},
}

func catalogTable(maxAtt int16, attrs ...attr) *wal.Table {
	t := &wal.Table{OID: 7, Schema: "public", Name: "t", ReplicaIdentity: 'd', Key: []int{0}, MaxAttNum: maxAtt, Usable: true}
	for _, a := range attrs {
		t.Columns = append(t.Columns, wal.TableColumn{AttNum: a.num, Name: a.name, Type: testTypes[a.typ], HasMissing: a.missing})
	}
	return t
}

func relation(attrs ...attr) *wal.Relation {
	r := &wal.Relation{ID: 7, Namespace: "public", Name: "t", ReplicaIdentity: 'd'}
	for i, a := range attrs {
		r.Columns = append(r.Columns, wal.Column{Key: i == 0, Name: a.name, TypeOID: testTypes[a.typ].OID, TypeMod: testTypes[a.typ].Mod})
	}
	return r
}

func TestEvolve(t *testing.T) {
	id, a, b := attr{num: 1, name: "id", typ: "int4"}, attr{num: 2, name: "a", typ: "text"}, attr{num: 3, name: "b", typ: "int4"}
	as := func(x attr, name, typ string) attr { x.name, x.typ = name, typ; return x }
	four := func(name string) attr { return attr{num: 4, name: name, typ: "text"} }
	for name, c := range map[string]struct {
		rel    []attr // of the stream, the past
		now    []attr // of the catalog, the present
		max    int16
		want   map[string]int // field ids by name after
		resync string
	}{
		"nothing":                           {rel: []attr{id, a, b}, now: []attr{id, a, b}, max: 3, want: map[string]int{"id": 1, "a": 2, "b": 3}},
		"added":                             {rel: []attr{id, a, b, four("c")}, now: []attr{id, a, b, four("c")}, max: 4, want: map[string]int{"id": 1, "a": 2, "b": 3, "c": 4}},
		"added with a default":              {rel: []attr{id, a, b, four("c")}, now: []attr{id, a, b, {num: 4, name: "c", typ: "text", missing: true}}, max: 4, resync: "default"},
		"dropped":                           {rel: []attr{id, b}, now: []attr{id, b}, max: 3, want: map[string]int{"id": 1, "b": 3}},
		"renamed":                           {rel: []attr{id, as(a, "z", "text"), b}, now: []attr{id, as(a, "z", "text"), b}, max: 3, want: map[string]int{"id": 1, "z": 2, "b": 3}},
		"names swapped":                     {rel: []attr{id, as(a, "b", "text"), as(b, "a", "int4")}, now: []attr{id, as(a, "b", "text"), as(b, "a", "int4")}, max: 3, want: map[string]int{"id": 1, "b": 2, "a": 3}},
		"dropped and added again":           {rel: []attr{id, b, four("a")}, now: []attr{id, b, four("a")}, max: 4, want: map[string]int{"id": 1, "b": 3, "a": 4}},
		"widened":                           {rel: []attr{id, a, as(b, "b", "int8")}, now: []attr{id, a, as(b, "b", "int8")}, max: 3, want: map[string]int{"id": 1, "a": 2, "b": 3}},
		"another type":                      {rel: []attr{id, a, as(b, "b", "text")}, now: []attr{id, a, as(b, "b", "text")}, max: 3, resync: "column b changed"},
		"key widened":                       {rel: []attr{as(id, "id", "int8"), a, b}, now: []attr{as(id, "id", "int8"), a, b}, max: 3, resync: "key column"},
		"the catalog is a rename ahead":     {rel: []attr{id, a, b, four("c")}, now: []attr{id, a, b, four("d")}, max: 4, want: map[string]int{"id": 1, "a": 2, "b": 3, "c": 4}},
		"the catalog is an add ahead":       {rel: []attr{id, a, b, four("c")}, now: []attr{id, a, b, four("c"), {num: 5, name: "d", typ: "text"}}, max: 5, want: map[string]int{"id": 1, "a": 2, "b": 3, "c": 4}},
		"the catalog is a drop ahead":       {rel: []attr{id, a, b}, now: []attr{id, b}, max: 3, want: map[string]int{"id": 1, "a": 2, "b": 3}},
		"renamed, and again in the catalog": {rel: []attr{id, as(a, "z", "text"), b}, now: []attr{id, as(a, "y", "text"), b}, max: 3, want: map[string]int{"id": 1, "z": 2, "b": 3}},
		"two unknown names side by side":    {rel: []attr{id, as(a, "y", "text"), as(b, "z", "int4")}, now: []attr{id}, max: 3, resync: "several times"},
		"varchar lengthened":                {rel: []attr{id, as(a, "a", "v20"), b}, now: []attr{id, as(a, "a", "v20"), b}, max: 3, want: map[string]int{"id": 1, "a": 2, "b": 3}},
	} {
		t.Run(name, func(t *testing.T) {
			old, err := NewLayout(catalogTable(3, id, a, b), nil, 0)
			require.NoError(t, err)
			now := catalogTable(c.max, c.now...)
			ev, err := Evolve(old, relation(c.rel...), now)
			require.NoError(t, err)
			if c.resync != "" {
				require.Contains(t, ev.Resync, c.resync)
				require.Same(t, old, ev.Layout)
				return
			}
			require.Empty(t, ev.Resync)
			got := map[string]int{}
			for _, f := range ev.Layout.Schema().Fields() {
				got[f.Name] = f.ID
			}
			require.Equal(t, c.want, got)
			for i, w := range ev.Wire {
				require.Equal(t, c.rel[i].name, ev.Layout.Columns[w].Name)
			}
			// What the table property says is the same layout.
			again, err := decodeLayout(ev.Layout.encode())
			require.NoError(t, err)
			require.True(t, again.sameAs(ev.Layout))
			require.True(t, again.Schema().Equals(ev.Layout.Schema()))
		})
	}
}

func TestEvolveAfterDrop(t *testing.T) {
	id := attr{num: 1, name: "id", typ: "int4"}
	old, err := NewLayout(catalogTable(1, id), nil, 0)
	require.NoError(t, err)
	ev, err := Evolve(old, relation(id), nil)
	require.NoError(t, err)
	require.Empty(t, ev.Resync, "rows from before the DROP have the shape that is known")
	ev, err = Evolve(old, relation(id, attr{num: 2, name: "b", typ: "text"}), nil)
	require.NoError(t, err)
	require.NotEmpty(t, ev.Resync)
}

// A layout made anew keeps the fields of attributes whose type still fits, and
// never gives an id again.
func TestNewLayoutAfterResync(t *testing.T) {
	id, a := attr{num: 1, name: "id", typ: "int4"}, attr{num: 2, name: "a", typ: "text"}
	old, err := NewLayout(catalogTable(2, id, a), nil, 0)
	require.NoError(t, err)
	next, err := NewLayout(catalogTable(3, attr{num: 1, name: "id", typ: "int8"}, attr{num: 3, name: "a", typ: "text"}), old, 0)
	require.NoError(t, err)
	require.Equal(t, 1, next.Columns[0].FieldID)
	require.Equal(t, 3, next.Columns[1].FieldID)
	other := catalogTable(1, id)
	other.OID = 8 // dropped and created again
	reborn, err := NewLayout(other, next, 0)
	require.NoError(t, err)
	require.Equal(t, 4, reborn.Columns[0].FieldID)
}

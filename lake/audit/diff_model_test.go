package audit

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake"
	"firn/lake/laketest"
	"firn/lake/snapshot"
	"firn/wal"
)

var modelIdent = catalog.Ident{Namespace: []string{"public"}, Name: "t"}

func pgType(oid uint32, name string) wal.TypeInfo {
	return wal.TypeInfo{OID: oid, Mod: -1, Schema: "pg_catalog", Name: name, Kind: 'b'}
}

// modelRow is a row by attribute number: a number that the value is made of, or
// NULL where there is none.
type modelRow map[int16]int

func (r modelRow) clone() modelRow { return maps.Clone(r) }

// model drives one table by random epochs, and remembers what it was in each.
type model struct {
	t      *testing.T
	rng    *rand.Rand
	faults *laketest.FaultStore
	keyed  bool
	layout *lake.Layout
	oid    uint32
	pg     []wal.TableColumn
	tab    *snapshot.Table
	next   int
	rows   []modelPlace
	epochs []modelEpoch
}

type modelPlace struct {
	row  modelRow
	path string
	pos  uint32
}

type modelEpoch struct {
	Point
	oid     uint32
	columns []lake.Column
	rows    []modelRow
}

func newModel(t *testing.T, version int, keyed bool, seed uint64) *model {
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 5)), faults: laketest.NewFaultStore(laketest.NewMemoryStore()), keyed: keyed, oid: 1}
	elem := pgType(2950, "uuid")
	list := wal.TypeInfo{OID: 2951, Mod: -1, Name: "_uuid", Kind: 'b', Elem: &elem}
	m.pg = []wal.TableColumn{
		{AttNum: 1, Name: "id", Type: pgType(20, "int8"), NotNull: true}, {AttNum: 2, Name: "a", Type: pgType(23, "int4")},
		{AttNum: 3, Name: "b", Type: pgType(25, "text")}, {AttNum: 4, Name: "u", Type: elem}, {AttNum: 5, Name: "us", Type: list},
	}
	m.lay(nil, 0)
	var err error
	m.tab, err = snapshot.Create(snapshot.CreateOptions{
		Options: snapshot.Options{Store: m.faults, Ident: lake.Ident{Namespace: "public", Name: "t"}, Location: "public/t", TempDir: t.TempDir(), RowGroupRows: 50},
		Schema:  m.layout.Schema(), FormatVersion: version,
	})
	require.NoError(t, err)
	m.commit(&lake.Change{Properties: m.property()})
	return m
}

func (m *model) lay(old *lake.Layout, last int) {
	t := &wal.Table{OID: m.oid, Schema: "public", Name: "t", ReplicaIdentity: 'f', Columns: m.pg}
	if m.keyed {
		t.Key = []int{0}
	}
	var err error
	m.layout, err = lake.NewLayout(t, old, last)
	require.NoError(m.t, err)
}

func (m *model) property() map[string]string {
	b, err := json.Marshal(m.layout)
	require.NoError(m.t, err)
	return map[string]string{"firn.layout": string(b)}
}

// plainOf is what the value of v in a column is in plain form.
func plainOf(c lake.Column, v int) string {
	switch c.Type.Name {
	case "int4", "int8":
		return fmt.Sprint(v)
	case "text":
		return strings.Repeat("x", v%40) + fmt.Sprint(v)
	case "numeric":
		return fmt.Sprintf("%d.%02d", v, v%100)
	case "uuid":
		return uuid.UUID{15: byte(v), 14: byte(v >> 8)}.String()
	}
	return strings.Repeat("36:"+uuid.UUID{15: byte(v)}.String()+",N,", v%3)
}

func appendTo(b array.Builder, c lake.Column, v int) {
	switch b := b.(type) {
	case *array.Int32Builder:
		b.Append(int32(v))
	case *array.Int64Builder:
		b.Append(int64(v))
	case *array.StringBuilder:
		b.Append(plainOf(c, v))
	case *array.Decimal128Builder:
		b.Append(decimal128.FromI64(int64(v*100 + v%100)))
	case *extensions.UUIDBuilder:
		b.Append(uuid.UUID{15: byte(v), 14: byte(v >> 8)})
	case *array.ListBuilder:
		b.Append(true)
		for range v % 3 {
			b.ValueBuilder().(*extensions.UUIDBuilder).Append(uuid.UUID{15: byte(v)})
			b.ValueBuilder().AppendNull()
		}
	default:
		panic(fmt.Sprintf("%T", b))
	}
}

// write makes a data file of rows.
func (m *model) write(rows []modelRow) *lake.NewFile {
	schema, err := table.SchemaToArrowSchema(m.layout.Schema(), nil, true, false)
	require.NoError(m.t, err)
	w, err := m.tab.NewFile(m.layout.Schema(), nil)
	require.NoError(m.t, err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for _, r := range rows {
		for i, c := range m.layout.Columns {
			if v, ok := r[c.AttNum]; ok {
				appendTo(b.Field(i), c, v)
			} else {
				b.Field(i).AppendNull()
			}
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	require.NoError(m.t, w.Write(rec))
	f, err := w.Close(m.t.Context())
	require.NoError(m.t, err)
	return f
}

func (m *model) newRow() modelRow {
	m.next++
	r := modelRow{1: m.next}
	if !m.keyed {
		r[1] = m.rng.IntN(6) // many are equal
	}
	for _, c := range m.layout.Columns[1:] {
		if n := m.rng.IntN(4); n > 0 {
			r[c.AttNum] = n
		}
	}
	return r
}

// step is one random epoch.
func (m *model) step() {
	c := &lake.Change{Dead: map[string]*roaring.Bitmap{}}
	switch m.rng.IntN(14) {
	case 0:
		c.Truncate = true
		m.rows = nil
	case 1:
		m.evolve(c)
	case 2:
		if m.rng.IntN(3) == 0 {
			m.recreate(c)
		}
	}
	var add []modelRow
	remove := func(p modelPlace) {
		if c.Dead[p.path] == nil {
			c.Dead[p.path] = roaring.New()
		}
		c.Dead[p.path].Add(p.pos)
	}
	rewritten := map[string]bool{}
	for _, f := range m.tab.Files() {
		rewritten[f.Path] = m.rng.IntN(6) == 0 // as a compaction does
	}
	kept := m.rows[:0]
	for _, p := range m.rows {
		switch n := m.rng.IntN(30); {
		case n == 0:
			remove(p)
		case n < 3:
			remove(p)
			r := m.newRow()
			r[1] = p.row[1]
			add = append(add, r)
		case rewritten[p.path]:
			remove(p)
			add = append(add, p.row)
		default:
			kept = append(kept, p)
		}
	}
	m.rows = kept
	for range m.rng.IntN(30) {
		add = append(add, m.newRow())
	}
	for len(add) > 0 {
		n := min(len(add), 1+m.rng.IntN(60))
		f := m.write(add[:n])
		for i, r := range add[:n] {
			m.rows = append(m.rows, modelPlace{r, f.Path, uint32(i)})
		}
		c.Add = append(c.Add, f)
		add = add[n:]
	}
	m.commit(c)
}

// evolve drops a column, adds one or widens one.
func (m *model) evolve(c *lake.Change) {
	last := m.pg[len(m.pg)-1].AttNum
	switch m.rng.IntN(3) {
	case 0:
		if len(m.pg) < 4 {
			return
		}
		at := 2 + m.rng.IntN(len(m.pg)-3)
		gone := m.pg[at].AttNum
		m.pg = slices.Delete(slices.Clone(m.pg), at, at+1)
		for i := range m.rows {
			m.rows[i].row = m.rows[i].row.clone()
			delete(m.rows[i].row, gone)
		}
	case 1:
		numeric := pgType(1700, "numeric")
		numeric.Mod = 10<<16 | 2 + 4
		m.pg = append(slices.Clone(m.pg), wal.TableColumn{AttNum: last + 1, Name: fmt.Sprint("n", last+1), Type: numeric})
	case 2:
		m.pg = slices.Clone(m.pg)
		m.pg[1].Type, m.pg[1].Name = pgType(20, "int8"), m.pg[1].Name+"x"
	}
	m.lay(m.layout, m.layout.LastField)
	c.Schema, c.Properties = m.layout.Schema(), m.property()
}

// recreate is DROP TABLE and CREATE TABLE: all fields are new ones.
func (m *model) recreate(c *lake.Change) {
	m.oid++
	m.lay(m.layout, m.layout.LastField)
	c.Schema, c.Properties = m.layout.Schema(), m.property()
	c.Truncate = true
	m.rows = nil
}

func (m *model) commit(c *lake.Change) {
	n := uint64(len(m.epochs) + 1)
	c.Stamp = lake.Stamp{Epoch: n, LSN: wal.LSN(n * 100), CommitTime: time.Unix(int64(1.7e9+n), 0), XID: uint32(n), Source: "1/1/db", Kind: "stream"}
	p, err := m.tab.Prepare(m.t.Context(), c)
	require.NoError(m.t, err)
	require.NoError(m.t, p.Upload(m.t.Context()))
	m.tab.Adopt(p)
	e := modelEpoch{oid: m.oid, columns: m.layout.Columns}
	e.Point = Point{Epoch: n, LSN: c.LSN, Time: c.CommitTime, Table: &catalog.Table{UUID: m.tab.UUID(), Metadata: m.tab.Metadata()}}
	for _, r := range m.rows {
		e.rows = append(e.rows, r.row)
	}
	m.epochs = append(m.epochs, e)
}

// texts are an epoch's rows as they show in the columns of another.
func (e modelEpoch) texts(as modelEpoch) map[string]int {
	out := map[string]int{}
	for _, r := range e.rows {
		var b strings.Builder
		for _, c := range as.columns {
			v, ok := r[c.AttNum]
			has := func(x lake.Column) bool {
				if e.oid != as.oid {
					return x.Name == c.Name && x.Type.Name == c.Type.Name
				}
				return x.AttNum == c.AttNum
			}
			if !ok || !slices.ContainsFunc(e.columns, has) {
				b.WriteString("NULL|")
			} else {
				b.WriteString(plainOf(c, v) + "|")
			}
		}
		out[b.String()]++
	}
	return out
}

func textsOf(t *testing.T, rec arrow.RecordBatch) []string {
	if rec == nil {
		return nil
	}
	out := make([]string, rec.NumRows())
	for i := range out {
		for _, c := range rec.Columns() {
			text := []byte("NULL")
			if c.IsValid(i) {
				var err error
				text, err = appendPlain(nil, c, i)
				require.NoError(t, err)
			}
			out[i] += string(text) + "|"
		}
	}
	return out
}

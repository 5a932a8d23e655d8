package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"

	"firn/lake"
	columns "firn/lake/column"
	"firn/wal"
	"firn/wal/slot"
)

// column is one that both sides have, of the same type.
type column struct {
	name string
	typ  iceberg.Type
}

// searchRowsMax bounds the rows kept in memory while differing ones are looked
// for; about 150 bytes each.
const searchRowsMax = 250_000

// compare fills r. changed says that the table was altered while it was read,
// and what was found counts for nothing.
func (v *verifier) compare(ctx context.Context, m *moment, p pair, r *TableReport) (changed bool, err error) {
	err = v.compareRows(ctx, m, p, r)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	now, derr := v.Source.Describe(ctx, p.postgres.OID, 0)
	if derr != nil {
		return false, errors.Join(err, derr)
	}
	return !sameTable(p.postgres, now) || errors.Is(err, slot.ErrTableChanged), err
}

func (v *verifier) compareRows(ctx context.Context, m *moment, p pair, r *TableReport) error {
	lake, err := v.openLake(ctx, p.metadata)
	if err != nil {
		return err
	}
	sc, err := mirrored(lake)
	if err != nil {
		return err
	}
	common, schema, err := compareSchemas(p.postgres, sc)
	if err != nil {
		return err
	}
	r.Schema = schema
	if len(common) == 0 {
		return errors.New("the two sides have no column in common")
	}
	postgres, err := v.postgresRows(m.snapshot, p.postgres, common)
	if err != nil {
		return err
	}
	s := search{key: keyColumns(p.postgres, common), columns: common, postgres: postgres, lake: lakeRows(lake, common)}
	a, b, err := s.checksums(ctx, v.buckets)
	if err != nil {
		return err
	}
	r.Postgres, r.Lake = side(a), side(b)
	r.Result = Equal
	if len(schema) > 0 {
		r.Result = Different
	}
	if a == b {
		return nil
	}
	if p.postgres.Append || !p.postgres.Usable {
		r.Result, r.Reason = Unchecked, "append: only inserts are mirrored, and the rows differ; updates and deletes in Postgres account for that"
		return nil
	}
	r.Result = Different
	r.Rows, err = s.rows(ctx, v.buckets, v.KeysMax)
	return err
}

// mirrored is a table's schema without the columns that are there only because
// its files were once partitioned by them.
func mirrored(t *table.Table) (*iceberg.Schema, error) {
	l, err := lake.LayoutOf(t.Properties())
	if err != nil || l == nil {
		return t.Schema(), err
	}
	return iceberg.NewSchema(t.Schema().ID, slices.DeleteFunc(t.Schema().Fields(), func(f iceberg.NestedField) bool {
		_, ok := l.Schema().FindFieldByID(f.ID)
		return !ok
	})...), nil
}

// compareSchemas compares the columns by name and type. common are those that
// both have alike, in Postgres' order.
func compareSchemas(t *wal.Table, sc *iceberg.Schema) (common []column, differences []string, err error) {
	inLake := map[string]iceberg.NestedField{}
	for _, f := range sc.Fields() {
		inLake[f.Name] = f
	}
	for _, c := range t.Columns {
		if c.Generated != 0 {
			continue // pgoutput leaves them out
		}
		codec, err := columns.For(c.Type, columns.Options{})
		if err != nil {
			return nil, nil, err
		}
		f, ok := inLake[c.Name]
		delete(inLake, c.Name)
		switch {
		case !ok:
			differences = append(differences, fmt.Sprintf("column %s is in Postgres only (the stream tells of it with the next change of a row)", c.Name))
		case !sameType(codec.Iceberg(), f.Type):
			differences = append(differences, fmt.Sprintf("column %s should be %s, as Postgres' %s, and is %s in the lake", c.Name, codec.Iceberg(), c.Type.Name, f.Type))
		default:
			common = append(common, column{c.Name, f.Type})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(inLake)) {
		differences = append(differences, fmt.Sprintf("column %s is in the lake only (the stream tells of it with the next change of a row)", name))
	}
	return common, differences, nil
}

func sameType(a, b iceberg.Type) bool {
	la, ok := a.(*iceberg.ListType)
	if !ok {
		return a.Equals(b)
	}
	lb, ok := b.(*iceberg.ListType)
	return ok && la.Element.Equals(lb.Element)
}

// keyColumns are the places in common of the columns that identify a row; none
// if that can't be said.
func keyColumns(t *wal.Table, common []column) []int {
	var out []int
	for _, k := range t.Key {
		at := slices.IndexFunc(common, func(c column) bool { return c.name == t.Columns[k].Name })
		if at < 0 {
			return nil
		}
		out = append(out, at)
	}
	return out
}

// search compares the two sides' rows.
type search struct {
	key            []int
	columns        []column
	postgres, lake reader
}

// checksums reads both sides at the same time.
func (s *search) checksums(ctx context.Context, b *buckets) (postgres, lake sum, err error) {
	g, ctx := errgroup.WithContext(ctx)
	side := func(read reader, into []sum, total *sum) func() error {
		return func() error {
			clear(into)
			h := hasher{key: s.key}
			return read(ctx, func(row [][]byte) error {
				all, key := h.hash(row)
				into[bucketOf(key)].Add(all)
				total.Add(all)
				return nil
			})
		}
	}
	g.Go(side(s.postgres, b.postgres, &postgres))
	g.Go(side(s.lake, b.lake, &lake))
	return postgres, lake, g.Wait()
}

// rows looks for the rows that differ: in buckets whose checksums do, the
// smallest first, as many as memory allows.
func (s *search) rows(ctx context.Context, b *buckets, keysMax int) (*Rows, error) {
	var differing []int
	for i := range bucketCount {
		if b.postgres[i] != b.lake[i] {
			differing = append(differing, i)
		}
	}
	size := func(i int) int64 { return b.postgres[i].Rows + b.lake[i].Rows }
	slices.SortFunc(differing, func(i, j int) int { return cmp.Compare(size(i), size(j)) })
	chosen := map[int]bool{}
	var total int64
	for _, i := range differing {
		if total += size(i); len(chosen) > 0 && total > searchRowsMax {
			break
		}
		chosen[i] = true
	}

	// The readers take turns: one map holds both sides.
	found := map[xxh3.Uint128]*keyed{}
	read := func(read reader, take func(*keyed, xxh3.Uint128)) error {
		h := hasher{key: s.key}
		return read(ctx, func(row [][]byte) error {
			all, key := h.hash(row)
			if !chosen[bucketOf(key)] {
				return nil
			}
			k := found[key]
			if k == nil {
				k = &keyed{text: s.show(row)}
				found[key] = k
			}
			take(k, all)
			return nil
		})
	}
	err := read(s.postgres, func(k *keyed, h xxh3.Uint128) { k.postgres++; k.difference.Add(h) })
	if err == nil {
		err = read(s.lake, func(k *keyed, h xxh3.Uint128) { k.lake++; k.difference.Take(h) })
	}
	if err != nil {
		return nil, fmt.Errorf("look for the rows that differ: %w", err)
	}
	out := &Rows{Complete: len(chosen) == len(differing)}
	for _, k := range slices.SortedFunc(maps.Values(found), func(a, b *keyed) int {
		return cmp.Or(cmp.Compare(len(a.text), len(b.text)), strings.Compare(a.text, b.text))
	}) {
		k.report(out, keysMax)
	}
	return out, nil
}

// keyed is what the two sides have under one key.
type keyed struct {
	postgres, lake int64
	difference     sum
	text           string
}

func (k *keyed) report(out *Rows, keysMax int) {
	switch {
	case k.difference == sum{}:
	case k.lake == 0:
		out.OnlyPostgres.add(k.text, k.postgres, keysMax)
	case k.postgres == 0:
		out.OnlyLake.add(k.text, k.lake, keysMax)
	case k.postgres != k.lake:
		out.Changed.add(fmt.Sprintf("%s (%d in Postgres, %d in the lake)", k.text, k.postgres, k.lake), 1, keysMax)
	default:
		out.Changed.add(k.text, 1, keysMax)
	}
}

const showMax = 200 // bytes of a key in a message

// show names a row by its key, or where it has none by all its columns.
func (s *search) show(row [][]byte) string {
	var b strings.Builder
	one := func(i int) {
		if b.Len() > showMax {
			return
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s.columns[i].name + "=")
		if row[i] == nil {
			b.WriteString("NULL")
		} else {
			b.WriteString(show(row[i][:min(len(row[i]), showMax)], s.columns[i].typ))
		}
	}
	for _, i := range s.key {
		one(i)
	}
	if len(s.key) == 0 {
		for i := range row {
			one(i)
		}
	}
	return strings.ToValidUTF8(b.String()[:min(b.Len(), showMax)], "")
}

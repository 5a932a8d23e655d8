package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
)

// move lets the model follow a rewrite that is installed.
func (h *harness) move(r *lake.Rewritten) {
	var out []int64
	if r.Output != nil {
		out = make([]int64, r.Output.Rows)
	}
	next := 0
	for i := range r.Moved {
		m := &r.Moved[i]
		for row, id := range h.rows[m.From] {
			pos, ok := m.Position(uint32(row))
			if !ok {
				require.NotEqual(h.t, m.From, h.alive[id], "a live row was left behind")
				continue
			}
			if m.Order == nil {
				require.EqualValues(h.t, next, pos)
			}
			next++
			require.Zero(h.t, out[pos], "two rows at one place")
			out[pos] = id
			if h.alive[id] == m.From {
				h.alive[id] = m.To
			}
		}
	}
	require.Len(h.t, out, next)
	if r.Output != nil {
		h.rows[r.Output.Path] = out
	}
}

// install adds a rewrite to a change as an owner does: what has died in the
// inputs meanwhile, and what the change itself lets die there, are rows of the
// output.
func (h *harness) install(c *lake.Change, r *lake.Rewritten) {
	c.Rewrites = append(c.Rewrites, r)
	died := roaring.New()
	for i := range r.Moved {
		m := &r.Moved[i]
		f := h.tab.byPath[m.From]
		if f == nil || c.Truncate {
			died.Or(m.All())
			delete(c.Dead, m.From)
			continue
		}
		for _, rows := range []*roaring.Bitmap{f.dead, c.Dead[m.From]} {
			if rows != nil {
				died.Or(m.Positions(rows))
			}
		}
		delete(c.Dead, m.From)
	}
	if !died.IsEmpty() {
		if c.Dead == nil {
			c.Dead = map[string]*roaring.Bitmap{}
		}
		c.Dead[r.Output.Path] = died
	}
}

func (h *harness) rewrite(inputs ...lake.RewriteInput) *lake.Rewritten {
	if len(inputs) == 0 {
		inputs = inputsOf(h.tab)
	}
	r, err := h.tab.Rewrite(h.ctx, inputs)
	require.NoError(h.t, err)
	return r
}

// lineage is what iceberg-go reads of each row: its id and sequence number.
func (h *harness) lineage() map[int64][2]int64 {
	_, it, err := h.open().Scan(table.WithSelectedFields("id", "_row_id", "_last_updated_sequence_number")).ToArrowRecords(h.ctx)
	require.NoError(h.t, err)
	out := map[int64][2]int64{}
	for rec, err := range it {
		require.NoError(h.t, err)
		column := func(name string) *array.Int64 {
			return rec.Column(rec.Schema().FieldIndices(name)[0]).(*array.Int64)
		}
		ids, rows, sequences := column("id"), column("_row_id"), column("_last_updated_sequence_number")
		for i := range ids.Len() {
			require.True(h.t, rows.IsValid(i) && sequences.IsValid(i))
			out[ids.Value(i)] = [2]int64{rows.Value(i), sequences.Value(i)}
		}
		rec.Release()
	}
	return out
}

// Rewrites run beside commits: each is installed some commits after it has read
// its inputs, alone or with an epoch's changes, whatever happened to them
// meanwhile. In v3 no row's id ever changes.
func TestRule21RandomRewrites(t *testing.T) {
	commits, n := 250, 4
	switch {
	case testing.Short():
		commits, n = 80, 2
	case laketest.Race:
		n = 2
	}
	for _, version := range []int{2, 3} {
		for _, seed := range seeds(t, n) {
			t.Run(fmt.Sprintf("v%d/seed%d", version, seed), func(t *testing.T) {
				t.Parallel()
				h := newHarness(t, version, seed)
				if seed%2 == 0 {
					h.sortBy("name desc, id")
				}
				running := map[string]bool{} // inputs
				type result struct {
					r   *lake.Rewritten
					err error
				}
				var done []chan result
				lineage := map[int64][2]int64{}
				installed, carried := 0, 0
				for i := range commits {
					if h.rng.IntN(3) == 0 {
						var inputs []lake.RewriteInput
						for _, in := range inputsOf(h.tab) {
							if !running[in.Path] && h.rng.IntN(3) > 0 && len(inputs) < 12 {
								inputs = append(inputs, in)
								running[in.Path] = true
							}
						}
						if len(inputs) > 0 {
							tab, end := h.tab, make(chan result, 1)
							done = append(done, end)
							go func() {
								r, err := tab.Rewrite(h.ctx, inputs)
								end <- result{r, err}
							}()
						}
					}
					c := h.random()
					if h.rng.IntN(4) == 0 {
						c = &lake.Change{Stamp: h.stamp("stream")}
					}
					for len(done) > 0 && h.rng.IntN(3) == 0 {
						k := h.rng.IntN(len(done))
						end := <-done[k]
						r := end.r
						done = append(done[:k], done[k+1:]...)
						if errors.Is(end.err, lake.ErrInputGone) {
							continue // it began after an input's end
						}
						require.NoError(t, end.err)
						h.install(c, r)
						installed++
						if r.Output != nil && c.Dead[r.Output.Path] != nil {
							carried++
						}
						for _, m := range r.Moved {
							delete(running, m.From)
						}
					}
					h.commit(c)
					if len(c.Rewrites) > 0 {
						for _, r := range c.Rewrites {
							for _, m := range r.Moved {
								require.Nil(t, h.tab.byPath[m.From])
							}
						}
						h.noDanglingDeletes()
					}
					if i%20 == 19 || i == commits-1 {
						h.check()
						if version == 3 {
							for id, now := range h.lineage() {
								if was, ok := lineage[id]; ok {
									require.Equal(t, was, now, "row %d", id)
								}
								lineage[id] = now
							}
						}
					}
					if i%50 == 49 { // a restart
						for _, end := range done {
							<-end
						}
						h.tab = h.sameAsLoaded()
						done, running = nil, map[string]bool{}
					}
				}
				for _, end := range done {
					<-end
				}
				require.Greater(t, installed, 10)
				require.Greater(t, carried, 3)
			})
		}
	}
}

// noDanglingDeletes: each live delete file names a live data file.
func (h *harness) noDanglingDeletes() {
	for d := range h.tab.deleteSet {
		named := 0
		for path := range d.rows {
			if h.tab.byPath[path] != nil {
				named++
			}
		}
		require.Positive(h.t, named, d.entry.file.FilePath())
	}
}

// TestRule21DeletesThatArriveMeanwhile plays the interleavings out by which
// compaction brings deleted rows back, each with an owner that is careful and
// one that isn't.
func TestRule21DeletesThatArriveMeanwhile(t *testing.T) {
	type game struct {
		h    *harness
		a, b *lake.NewFile
		r    *lake.Rewritten
	}
	var by string
	// at is where the row of a number is in the output.
	at := func(n uint32) uint32 {
		if by != "" {
			return 16 - n
		}
		return n
	}
	begin := func(t *testing.T, version int) *game {
		h := newHarness(t, version, 21)
		if by != "" {
			h.sortBy(by)
		}
		a, b := h.write(testSchema, 10), h.write(testSchema, 10)
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{a, b}})
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Dead: map[string]*roaring.Bitmap{a.Path: dead(0, 1), b.Path: dead(9)}})
		return &game{h, a, b, h.rewrite()}
	}
	careless := func(t *testing.T, g *game, c *lake.Change) {
		c.Stamp, c.Rewrites = g.h.stamp("stream"), []*lake.Rewritten{g.r}
		_, err := g.h.tab.Prepare(g.h.ctx, c)
		require.ErrorIs(t, err, lake.ErrRowsChanged)
	}
	careful := func(t *testing.T, g *game, c *lake.Change, operation string) {
		c.Stamp = g.h.stamp("stream")
		g.h.install(c, g.r)
		g.h.commit(c)
		s := g.h.summary()
		require.Equal(t, operation, string(s.Operation))
		require.Equal(t, map[bool]string{true: "rewrite", false: "stream"}[operation == "replace"], s.Properties["firn.kind"])
		require.Equal(t, "17", s.Properties["firn.rewrite-rows"])
		require.Len(t, s.Properties["firn.rewrite-checksum"], 32)
		g.h.check()
		g.h.noDanglingDeletes()
	}
	for _, game := range []struct {
		version int
		by      string
	}{{2, ""}, {3, ""}, {2, "id desc"}, {3, "id desc"}} {
		version := game.version
		by = game.by
		t.Run(strings.TrimSpace(fmt.Sprint("v", version, " ", by)), func(t *testing.T) {
			t.Run("nothing died", func(t *testing.T) {
				g := begin(t, version)
				careful(t, g, &lake.Change{}, "replace")
				require.Len(t, g.h.tab.files, 1)
				require.Empty(t, g.h.tab.deleteSet)
				require.Equal(t, "2", g.h.summary().Properties["removed-delete-files"])
			})
			t.Run("rows died before the install", func(t *testing.T) {
				g := begin(t, version)
				g.h.commit(&lake.Change{Stamp: g.h.stamp("stream"), Dead: map[string]*roaring.Bitmap{g.a.Path: dead(5), g.b.Path: dead(0)}})
				careless(t, g, &lake.Change{})
				careless(t, g, &lake.Change{Dead: map[string]*roaring.Bitmap{g.r.Output.Path: dead(at(3))}}) // b's is missing
				careful(t, g, &lake.Change{}, "replace")
				require.True(t, dead(at(3), at(8)).Equals(g.h.tab.files[0].dead))
			})
			t.Run("rows die in the install's own epoch", func(t *testing.T) {
				g := begin(t, version)
				careless(t, g, &lake.Change{Dead: map[string]*roaring.Bitmap{g.b.Path: dead(3)}})
				careful(t, g, &lake.Change{Dead: map[string]*roaring.Bitmap{g.b.Path: dead(3)}, Add: []*lake.NewFile{g.h.write(testSchema, 3)}}, "overwrite")
			})
			t.Run("an input has died as a whole", func(t *testing.T) {
				g := begin(t, version)
				g.h.commit(&lake.Change{Stamp: g.h.stamp("stream"), Dead: map[string]*roaring.Bitmap{g.a.Path: dead(2, 3, 4, 5, 6, 7, 8, 9)}})
				require.Len(t, g.h.tab.files, 1)
				careless(t, g, &lake.Change{})
				careful(t, g, &lake.Change{}, "replace")
				require.Equal(t, uint64(8), g.h.tab.files[0].deadRows())
			})
			t.Run("TRUNCATE before the install", func(t *testing.T) {
				g := begin(t, version)
				g.h.commit(&lake.Change{Stamp: g.h.stamp("stream"), Truncate: true, Add: []*lake.NewFile{g.h.write(testSchema, 4)}})
				careless(t, g, &lake.Change{})
				g.h.install(&lake.Change{}, g.r)
				careful(t, g, &lake.Change{}, "replace")
				require.Len(t, g.h.tab.files, 1)
				require.Len(t, g.h.want(), 4)
			})
			t.Run("TRUNCATE in the install's own epoch", func(t *testing.T) {
				g := begin(t, version)
				careless(t, g, &lake.Change{Truncate: true})
				careful(t, g, &lake.Change{Truncate: true, Add: []*lake.NewFile{g.h.write(testSchema, 4)}}, "overwrite")
				require.Len(t, g.h.want(), 4)
			})
			t.Run("a row was left behind that never died", func(t *testing.T) {
				g := begin(t, version)
				g.r = g.h.rewrite(lake.RewriteInput{Path: g.a.Path, Dead: dead(0, 1, 2)})
				careless(t, g, &lake.Change{})
				// It may die in the very commit.
				c := &lake.Change{Stamp: g.h.stamp("stream"), Rewrites: []*lake.Rewritten{g.r}, Dead: map[string]*roaring.Bitmap{g.a.Path: dead(2)}}
				delete(g.h.alive, g.h.rows[g.a.Path][2])
				g.h.commit(c)
				require.Equal(t, "overwrite", string(g.h.summary().Operation))
				g.h.check()
			})
			t.Run("nothing lives", func(t *testing.T) {
				g := begin(t, version)
				all := roaring.New()
				all.AddRange(0, 10)
				r := g.h.rewrite(lake.RewriteInput{Path: g.a.Path, Dead: all})
				require.Nil(t, r.Output)
				c := &lake.Change{Stamp: g.h.stamp("stream"), Rewrites: []*lake.Rewritten{r}, Dead: map[string]*roaring.Bitmap{g.a.Path: all}}
				for _, id := range g.h.rows[g.a.Path] {
					delete(g.h.alive, id)
				}
				g.h.commit(c)
				require.Equal(t, "delete", string(g.h.summary().Operation))
				g.h.check()
			})
			t.Run("twice", func(t *testing.T) {
				g := begin(t, version)
				c := &lake.Change{Stamp: g.h.stamp("stream"), Rewrites: []*lake.Rewritten{g.r, g.r}}
				_, err := g.h.tab.Prepare(g.h.ctx, c)
				require.ErrorContains(t, err, "two rewrites")
			})
		})
	}
}

func TestRewriteRefuses(t *testing.T) {
	h := newHarness(t, 2, 1)
	a := h.write(testSchema, 10)
	h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{a}})
	for want, inputs := range map[string][]lake.RewriteInput{
		"there are none":        {},
		"is there twice":        {{Path: a.Path}, {Path: a.Path}},
		"position 10 is beyond": {{Path: a.Path, Dead: dead(10)}},
	} {
		_, err := h.tab.Rewrite(h.ctx, inputs)
		require.ErrorContains(t, err, want)
	}
	_, err := h.tab.Rewrite(h.ctx, []lake.RewriteInput{{Path: a.Path}, {Path: "no-such"}})
	require.ErrorIs(t, err, lake.ErrInputGone)
	ctx, cancel := context.WithCancel(h.ctx)
	cancel()
	_, err = h.tab.Rewrite(ctx, inputsOf(h.tab))
	require.ErrorIs(t, err, context.Canceled)
}

// Rewrites stay within a partition, and say which it is.
func TestRewritePartition(t *testing.T) {
	h := newHarness(t, 2, 16)
	spec, err := iceberg.NewPartitionSpecOpts(iceberg.WithSpecID(1),
		iceberg.AddPartitionFieldBySourceID(1, "id", iceberg.BucketTransform{NumBuckets: 2}, testSchema, nil))
	require.NoError(t, err)
	m, err := table.NewMetadata(testSchema, &spec, table.UnsortedSortOrder, h.tab.uri, nil)
	require.NoError(t, err)
	b, err := marshalForeign(m)
	require.NoError(t, err)
	h.tab.meta, err = parseMetadata(b)
	require.NoError(t, err)
	spec = h.tab.meta.specs[0]
	c := &lake.Change{Stamp: h.stamp("snapshot")}
	for i := range int64(4) {
		w, err := h.tab.newFile(h.tab.meta, testSchema, spec, map[int]any{spec.Field(0).FieldID: int32(i % 2)})
		require.NoError(t, err)
		require.NoError(t, w.Write(record(t, testSchema, []int64{4*i + 1, 4*i + 2})))
		f, err := w.Close(h.ctx)
		require.NoError(t, err)
		h.rows[f.Path] = []int64{4*i + 1, 4*i + 2}
		c.Add = append(c.Add, f)
	}
	h.commit(c)
	all := inputsOf(h.tab)
	_, err = h.tab.Rewrite(h.ctx, all[:2])
	require.ErrorContains(t, err, "different partitions")
	h.tab = h.sameAsLoaded()
	partition := h.tab.files[1].partition
	c = &lake.Change{Stamp: h.stamp("stream")}
	h.install(c, h.rewrite(all[1], all[3]))
	h.commit(c)
	require.Len(t, h.sameAsLoaded().files, 3)
	require.Equal(t, partition, h.tab.files[2].partition)
	require.Equal(t, h.want(), h.scan())
}

// A table that has just become v3: its rows have no ids until the next commit.
func TestRewriteWaitsForRowIDs(t *testing.T) {
	h := newHarness(t, 2, 1)
	h.commit(&lake.Change{Stamp: h.stamp("snapshot"), Add: []*lake.NewFile{h.write(testSchema, 10)}})
	h.tab.meta = h.tab.meta.clone()
	h.tab.meta.formatVersion = 3
	body, err := h.tab.meta.marshal()
	require.NoError(t, err)
	uri, err := h.putMetadata(json.RawMessage(body), "public/t/metadata/00009-upgraded.metadata.json")
	require.NoError(t, err)
	h.tab = h.load(uri)
	_, err = h.tab.Rewrite(h.ctx, inputsOf(h.tab))
	require.ErrorContains(t, err, "with the table's next commit")
	h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{h.write(testSchema, 10)}})
	was := h.lineage()
	c := &lake.Change{Stamp: h.stamp("stream")}
	h.install(c, h.rewrite())
	h.commit(c)
	require.Equal(t, was, h.lineage())
	h.check()
}

// Files of older schemas come out in the current one.
func TestRewritePromotes(t *testing.T) {
	p := iceberg.PrimitiveTypes
	old := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "id", Type: p.Int32, Required: true}, iceberg.NestedField{ID: 2, Name: "f", Type: p.Float32})
	wide := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "id", Type: p.Int64, Required: true}, iceberg.NestedField{ID: 3, Name: "new", Type: p.UUID}, iceberg.NestedField{ID: 2, Name: "renamed", Type: p.Float64})
	h := newHarness(t, 3, 12)
	var err error
	h.tab, err = Create(CreateOptions{Options: h.tab.o, Schema: old, FormatVersion: 3})
	require.NoError(t, err)
	write := func(sc *iceberg.Schema, rows string) {
		w, err := h.tab.NewFile(sc, nil)
		require.NoError(t, err)
		rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, w.(*fileWriter).arrow, strings.NewReader(rows))
		require.NoError(t, err)
		require.NoError(t, w.Write(rec))
		f, err := w.Close(h.ctx)
		require.NoError(t, err)
		h.rows[f.Path] = make([]int64, f.Rows)
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Schema: sc, Add: []*lake.NewFile{f}})
	}
	write(old, `[{"id":1,"f":1.5},{"id":2,"f":null}]`)
	write(wide, `[{"id":3000000000,"new":"00112233-4455-6677-8899-aabbccddeeff","renamed":0.1}]`)
	c := &lake.Change{Stamp: h.stamp("stream")}
	h.install(c, h.rewrite())
	h.commit(c)
	require.Len(t, h.tab.files, 1)
	require.NoError(t, h.tab.Read(h.ctx, h.tab.files[0].path, []int{1, 2, 3}, nil, func(_ int64, rec arrow.RecordBatch) error {
		require.Equal(t, []int64{1, 2, 3e9}, rec.Column(0).(*array.Int64).Int64Values())
		require.Equal(t, "1.5", rec.Column(1).ValueStr(0))
		require.True(t, rec.Column(1).IsNull(1))
		require.Equal(t, 2, rec.Column(2).NullN())
		return nil
	}))
	require.Equal(t, map[int64][2]int64{1: {0, 1}, 2: {1, 1}, 3e9: {2, 2}}, h.lineage())
	h.sameAsLoaded()
}

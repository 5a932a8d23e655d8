package snapshot

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
	"firn/lake/object"
	"firn/lake/partition"
)

// manySchema has every type that a table can be partitioned by.
var manySchema = iceberg.NewSchema(0,
	iceberg.NestedField{ID: 1, Name: "i", Type: iceberg.PrimitiveTypes.Int32},
	iceberg.NestedField{ID: 2, Name: "l", Type: iceberg.PrimitiveTypes.Int64},
	iceberg.NestedField{ID: 3, Name: "d", Type: iceberg.PrimitiveTypes.Date},
	iceberg.NestedField{ID: 4, Name: "ti", Type: iceberg.PrimitiveTypes.Time},
	iceberg.NestedField{ID: 5, Name: "ts", Type: iceberg.PrimitiveTypes.Timestamp},
	iceberg.NestedField{ID: 6, Name: "tz", Type: iceberg.PrimitiveTypes.TimestampTz},
	iceberg.NestedField{ID: 7, Name: "n", Type: iceberg.DecimalTypeOf(20, 3)},
	iceberg.NestedField{ID: 8, Name: "s", Type: iceberg.PrimitiveTypes.String},
	iceberg.NestedField{ID: 9, Name: "u", Type: iceberg.PrimitiveTypes.UUID},
	iceberg.NestedField{ID: 10, Name: "b", Type: iceberg.PrimitiveTypes.Binary},
	iceberg.NestedField{ID: 11, Name: "o", Type: iceberg.PrimitiveTypes.Bool})

// manyRows has a row of small values, one of large ones and one of NULLs, n times.
func manyRows(t testing.TB, n int) arrow.RecordBatch {
	as, err := table.SchemaToArrowSchema(manySchema, nil, true, false)
	require.NoError(t, err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, as)
	defer b.Release()
	for range n {
		for _, v := range []int64{-7, 1_234_567_890} {
			b.Field(0).(*array.Int32Builder).Append(int32(v))
			b.Field(1).(*array.Int64Builder).Append(v * 5)
			b.Field(2).(*array.Date32Builder).Append(arrow.Date32(v % 100_000))
			b.Field(3).(*array.Time64Builder).Append(arrow.Time64(v + 7))
			b.Field(4).(*array.TimestampBuilder).Append(arrow.Timestamp(v * 1000))
			b.Field(5).(*array.TimestampBuilder).Append(arrow.Timestamp(v * 1_000_000))
			b.Field(6).(*array.Decimal128Builder).Append(decimal128.FromI64(v * 1_000_000))
			b.Field(7).(*array.StringBuilder).Append([]string{"<nil>", "größer/ als=%2F?"}[max(0, min(1, v))])
			b.Field(8).(*extensions.UUIDBuilder).Append(uuid.UUID{15: byte(v), 0: 255})
			b.Field(9).(*array.BinaryBuilder).Append([]byte{byte(v), 0, 255, 1, 2})
			b.Field(10).(*array.BooleanBuilder).Append(v > 0)
		}
		for _, f := range b.Fields() {
			f.AppendNull()
		}
	}
	return b.NewRecordBatch()
}

// sown is a partitioned table of manySchema.
type sown struct {
	*harness
	fields []partition.Field
	split  *partition.Splitter
}

func sow(t *testing.T, version int, by string) *sown {
	s := &sown{harness: newHarness(t, version, 1), fields: bound(t, by, manySchema)}
	var err error
	s.store = laketest.NewMemoryStore()
	s.tab, err = Create(CreateOptions{FormatVersion: version, Schema: manySchema, Partition: s.fields,
		Options: Options{Store: s.store, Ident: lake.Ident{Namespace: "public", Name: "t"}, Location: "public/t", TempDir: t.TempDir()}})
	require.NoError(t, err)
	s.splitBy(s.fields, manySchema)
	return s
}

func bound(t testing.TB, text string, sc *iceberg.Schema) []partition.Field {
	by, err := partition.Parse(text)
	require.NoError(t, err)
	fields, err := partition.Bind(by, sc)
	require.NoError(t, err)
	return fields
}

func (s *sown) splitBy(fields []partition.Field, sc *iceberg.Schema) {
	spec, err := s.tab.Spec(fields)
	require.NoError(s.t, err)
	s.split, err = partition.NewSplitter(spec, sc)
	require.NoError(s.t, err)
}

// plant writes a file for each partition of the rows.
func (s *sown) plant(sc *iceberg.Schema, rec arrow.RecordBatch) (files []*lake.NewFile) {
	parts, err := s.split.Split(rec.Columns(), int(rec.NumRows()), func(uint32) bool { return false })
	require.NoError(s.t, err)
	for i := range parts {
		w, err := s.tab.NewFile(sc, s.split.Place(&parts[i]))
		require.NoError(s.t, err)
		for _, row := range parts[i].Rows {
			one := rec.NewSlice(int64(row), int64(row)+1)
			require.NoError(s.t, w.Write(one))
			one.Release()
		}
		f, err := w.Close(s.t.Context())
		require.NoError(s.t, err)
		s.rows[f.Path] = make([]int64, f.Rows) // which the harness's model wants to know of
		files = append(files, f)
	}
	return files
}

// reloaded is the table as a start finds it, which must be as it was.
func (s *sown) reloaded() *Table {
	back, err := Load(s.t.Context(), s.tab.o, s.tab.Metadata())
	require.NoError(s.t, err)
	of := func(t *Table) map[string]string {
		out := map[string]string{}
		for _, f := range t.Files() {
			out[f.Path] = f.Partition
			if f.Dead != nil {
				out[f.Path] += " dead " + f.Dead.String()
			}
		}
		return out
	}
	require.Equal(s.t, of(s.tab), of(back))
	require.Equal(s.t, s.tab.Footprint(), back.Footprint())
	return back
}

func (s *sown) scan(filter iceberg.BooleanExpression) (rows int64, files int) {
	tab, err := table.NewFromLocation(s.ctx, table.Identifier{"public", "t"}, s.tab.Metadata(),
		func(ctx context.Context) (iceio.IO, error) { return object.FileIO(ctx, s.store), nil }, nil)
	require.NoError(s.t, err)
	scan := tab.Scan(table.WithRowFilter(filter))
	tasks, err := scan.PlanFiles(s.ctx)
	require.NoError(s.t, err)
	got, err := scan.ToArrowTable(s.ctx)
	require.NoError(s.t, err)
	defer got.Release()
	return got.NumRows(), len(tasks)
}

// Partition values of every type, NULL too, come back from manifests as they
// were; files are marked, rewritten and found again by them.
func TestPartitionValues(t *testing.T) {
	for _, version := range []int{2, 3} {
		for _, by := range []string{"i", "l", "d", "ti", "ts", "tz", "n", "s", "b", "o", "year(d)", "month(ts)", "day(tz)", "day(d)", "hour(ts)",
			"truncate(10, i)", "truncate(10, l)", "truncate(2, s)", "truncate(1, b)", "truncate(50, n)",
			"bucket(16, i), bucket(16, l), bucket(16, d), bucket(16, ti), bucket(16, ts), bucket(16, tz), bucket(16, n), bucket(16, s), bucket(16, b)"} {
			t.Run(fmt.Sprintf("v%d %s", version, by), func(t *testing.T) {
				s := sow(t, version, by)
				rec := manyRows(t, 4)
				defer rec.Release()
				first := s.plant(manySchema, rec)
				require.Len(t, first, 3)
				s.commit(&lake.Change{Stamp: s.stamp("stream"), Add: first})
				require.Empty(t, s.tab.begun)
				s.reloaded()
				second := s.plant(manySchema, rec)
				dead := map[string]*roaring.Bitmap{}
				for _, f := range first {
					dead[f.Path] = roaring.BitmapOf(1)
				}
				s.commit(&lake.Change{Stamp: s.stamp("stream"), Add: second, Dead: dead})
				s.tab = s.reloaded()
				require.Len(t, s.tab.Files(), 6)

				var rewrites []*lake.Rewritten
				dead = map[string]*roaring.Bitmap{}
				for _, f := range first {
					var inputs []lake.RewriteInput
					for _, g := range s.tab.Files() {
						if s.tab.byPath[f.Path].partition == g.Partition {
							inputs = append(inputs, lake.RewriteInput{Path: g.Path, Dead: g.Dead})
						}
					}
					require.Len(t, inputs, 2)
					r, err := s.tab.Rewrite(t.Context(), inputs)
					require.NoError(t, err)
					rewrites = append(rewrites, r)
				}
				s.commit(&lake.Change{Stamp: s.stamp("rewrite"), Rewrites: rewrites, Dead: dead})
				s.tab = s.reloaded()
				require.Len(t, s.tab.Files(), 3)
				for _, f := range s.tab.Files() {
					require.EqualValues(t, 7, f.Rows)
				}
				rows, files := s.scan(iceberg.EqualTo(iceberg.Reference("i"), int32(-7)))
				require.EqualValues(t, 7, rows)
				require.LessOrEqual(t, files, 2)
				rows, _ = s.scan(iceberg.IsNull(iceberg.Reference("i")))
				require.EqualValues(t, 7, rows)
			})
		}
	}
}

// The spec changes while files of the old one stay, are marked and rewritten;
// what it was made of is dropped, and a spec that was there before comes again
// under its id.
func TestPartitionEvolution(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			s := sow(t, version, "s, month(tz)")
			rec := manyRows(t, 2)
			defer rec.Release()
			old := s.plant(manySchema, rec)
			s.commit(&lake.Change{Stamp: s.stamp("stream"), Add: old})

			// Files of the next spec are begun before a change says so, and of the
			// one after it, too.
			next := bound(t, "day(tz), bucket(4, l)", manySchema)
			s.splitBy(next, manySchema)
			files := s.plant(manySchema, rec)
			narrow := iceberg.NewSchema(0, append(append([]iceberg.NestedField{}, manySchema.Fields()[:7]...), manySchema.Fields()[8:]...)...)
			last := bound(t, "bucket(4, l)", narrow)
			spec, err := s.tab.Spec(last)
			require.NoError(t, err)
			require.Equal(t, 2, spec.ID())
			require.Equal(t, 1003, spec.Field(0).FieldID)
			s.commit(&lake.Change{Stamp: s.stamp("stream"), Add: files, Dead: map[string]*roaring.Bitmap{old[0].Path: roaring.BitmapOf(0)}})
			require.Zero(t, s.tab.meta.defaultSpecID)
			s.tab = s.reloaded()
			require.Equal(t, 3, len(s.tab.meta.specs))

			// The text that old files are partitioned by goes.
			s.commit(&lake.Change{Stamp: s.stamp("schema"), Schema: narrow, Partition: last})
			require.Equal(t, 2, s.tab.meta.defaultSpecID)
			s.tab = s.reloaded()
			var rewrites []*lake.Rewritten
			for _, f := range s.tab.Files() {
				r, err := s.tab.Rewrite(t.Context(), []lake.RewriteInput{{Path: f.Path, Dead: f.Dead}})
				require.NoError(t, err)
				require.Equal(t, s.tab.byPath[f.Path].entry.file.SpecID(), r.Output.Entry.SpecID())
				require.Equal(t, f.Partition, partitionKey(r.Output.Entry))
				rewrites = append(rewrites, r)
			}
			s.commit(&lake.Change{Stamp: s.stamp("rewrite"), Rewrites: rewrites})
			s.tab = s.reloaded()
			rows, _ := s.scan(iceberg.AlwaysTrue{})
			require.EqualValues(t, 11, rows)
			rows, got := s.scan(iceberg.EqualTo(iceberg.Reference("tz"), iceberg.Timestamp(-7_000_000)))
			require.EqualValues(t, 3, rows)
			require.Equal(t, 2, got)

			s.commit(&lake.Change{Stamp: s.stamp("schema"), Schema: narrow, Partition: next})
			require.Equal(t, 1, s.tab.meta.defaultSpecID)
			s.commit(&lake.Change{Stamp: s.stamp("schema"), Schema: narrow})
			require.Equal(t, 3, s.tab.meta.defaultSpecID)
			s.reloaded()
		})
	}
}

// Columns come that are named as partition fields are: these have another name
// from then on, in specs that are no longer used too, and what is there is found
// by them as before.
func TestPartitionNames(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			s := sow(t, version, "s, day(tz), bucket(4, l)")
			names := func() (out []string) {
				taken := map[string]int{}
				for i := range s.tab.meta.specs {
					for _, f := range s.tab.meta.specs[i].Fields() {
						require.Equal(t, f.FieldID, cmp.Or(taken[f.Name], f.FieldID), f.Name)
						taken[f.Name] = f.FieldID
						c, ok := s.tab.Schema().FindFieldByName(f.Name)
						require.True(t, !ok || c.ID == f.SourceID() && f.Transform.String() == "identity", f.Name)
						out = append(out, f.Name)
					}
				}
				return out
			}
			rec := manyRows(t, 2)
			defer rec.Release()
			s.commit(&lake.Change{Stamp: s.stamp("stream"), Add: s.plant(manySchema, rec)})
			require.Equal(t, []string{"s", "tz_day", "l_bucket_4"}, names())

			// s is replaced by another; tz_day comes, and l gets the name of its field.
			fields := slices.Clone(manySchema.Fields())
			fields[1].Name = "L_bucket_4"
			fields[7] = iceberg.NestedField{ID: 12, Name: "s", Type: iceberg.PrimitiveTypes.Int32}
			sc := iceberg.NewSchema(0, append(fields, iceberg.NestedField{ID: 13, Name: "tz_day", Type: iceberg.PrimitiveTypes.String})...)
			s.commit(&lake.Change{Stamp: s.stamp("schema"), Schema: sc, Partition: s.fields[1:]})
			require.Equal(t, []string{"s_part", "tz_day_part", "l_bucket_4_part", "tz_day_part", "l_bucket_4_part"}, names())
			s.tab = s.reloaded()
			var rewrites []*lake.Rewritten
			for _, f := range s.tab.Files()[:2] {
				r, err := s.tab.Rewrite(t.Context(), []lake.RewriteInput{{Path: f.Path, Dead: f.Dead}})
				require.NoError(t, err)
				require.Equal(t, f.Partition, partitionKey(r.Output.Entry))
				rewrites = append(rewrites, r)
			}
			s.commit(&lake.Change{Stamp: s.stamp("rewrite"), Rewrites: rewrites})
			s.tab = s.reloaded()
			rows, files := s.scan(iceberg.EqualTo(iceberg.Reference("tz"), iceberg.Timestamp(-7_000_000)))
			require.EqualValues(t, 2, rows)
			require.Equal(t, 1, files)

			// The same words again are the same spec, and the new s is a field of its own.
			same, err := s.tab.Spec(bound(t, `day(tz), bucket(4, "L_bucket_4")`, sc))
			require.NoError(t, err)
			require.Equal(t, 1, same.ID())
			s.commit(&lake.Change{Stamp: s.stamp("schema"), Schema: sc, Partition: bound(t, "s, day(tz)", sc)})
			require.Equal(t, []string{"s_part", "tz_day_part", "l_bucket_4_part", "tz_day_part", "l_bucket_4_part", "s", "tz_day_part"}, names()[:7])
			s.reloaded()
		})
	}
}

// A partition value that is an empty text is the least there is, and not none:
// readers skip manifests without bounds.
func TestPartitionOfEmptyText(t *testing.T) {
	s := sow(t, 2, "s")
	as, err := table.SchemaToArrowSchema(manySchema, nil, true, false)
	require.NoError(t, err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, as)
	defer b.Release()
	for _, text := range []string{"", "x", ""} {
		for i, f := range b.Fields() {
			if i == 7 {
				f.(*array.StringBuilder).Append(text)
			} else {
				f.AppendNull()
			}
		}
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	s.commit(&lake.Change{Stamp: s.stamp("stream"), Add: s.plant(manySchema, rec)})
	for range 3 {
		for text, want := range map[string]int64{"": 2, "x": 1, "y": 0} {
			rows, files := s.scan(iceberg.EqualTo(iceberg.Reference("s"), text))
			require.Equal(t, want, rows, "%q", text)
			require.LessOrEqual(t, files, 1)
		}
		s.tab = s.reloaded() // and the manifest goes into the next list
		s.commit(&lake.Change{Stamp: s.stamp("schema")})
	}
}

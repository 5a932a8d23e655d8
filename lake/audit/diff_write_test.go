package audit

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"firn/lake"
)

func TestValues(t *testing.T) {
	for _, c := range []struct {
		typ        arrow.DataType
		add        func(array.Builder)
		json, bare string
	}{
		{arrow.FixedWidthTypes.Boolean, func(b array.Builder) { b.(*array.BooleanBuilder).Append(true) }, `true`, `true`},
		{arrow.PrimitiveTypes.Int32, func(b array.Builder) { b.AppendNull() }, `null`, `NULL`},
		{arrow.PrimitiveTypes.Int64, func(b array.Builder) { b.(*array.Int64Builder).Append(math.MaxInt64) }, `9223372036854775807`, `9223372036854775807`},
		{arrow.PrimitiveTypes.Float32, func(b array.Builder) { b.(*array.Float32Builder).Append(0.1) }, `0.1`, `0.1`},
		{arrow.PrimitiveTypes.Float64, func(b array.Builder) { b.(*array.Float64Builder).Append(math.Inf(-1)) }, `"-Infinity"`, `-Infinity`},
		{arrow.PrimitiveTypes.Float64, func(b array.Builder) { b.(*array.Float64Builder).Append(1e300) }, `1e+300`, `1e+300`},
		{&arrow.Decimal128Type{Precision: 10, Scale: 2}, func(b array.Builder) { b.(*array.Decimal128Builder).Append(decimal128.FromI64(-5)) }, `"-0.05"`, `-0.05`},
		{arrow.FixedWidthTypes.Date32, func(b array.Builder) { b.(*array.Date32Builder).Append(20780) }, `"2026-11-23"`, `2026-11-23`},
		{arrow.FixedWidthTypes.Time64us, func(b array.Builder) { b.(*array.Time64Builder).Append(1) }, `"00:00:00.000001"`, `00:00:00.000001`},
		{&arrow.TimestampType{Unit: arrow.Microsecond}, func(b array.Builder) { b.(*array.TimestampBuilder).Append(-1) }, `"1969-12-31T23:59:59.999999"`, `1969-12-31T23:59:59.999999`},
		{arrow.FixedWidthTypes.Timestamp_us, func(b array.Builder) { b.(*array.TimestampBuilder).Append(0) }, `"1970-01-01T00:00:00.000000+00:00"`, `1970-01-01T00:00:00.000000+00:00`},
		{arrow.BinaryTypes.String, func(b array.Builder) { b.(*array.StringBuilder).Append("a\"<\n") }, `"a\"<\n"`, `"a\"<\n"`},
		{arrow.BinaryTypes.Binary, func(b array.Builder) { b.(*array.BinaryBuilder).Append([]byte{0, 255}) }, `"00ff"`, `00ff`},
		{extensions.NewUUIDType(), func(b array.Builder) { b.(*extensions.UUIDBuilder).Append(uuid.UUID{15: 1}) },
			`"00000000-0000-0000-0000-000000000001"`, `00000000-0000-0000-0000-000000000001`},
		{arrow.ListOf(arrow.FixedWidthTypes.Date32), func(b array.Builder) {
			l := b.(*array.ListBuilder)
			l.Append(true)
			l.ValueBuilder().(*array.Date32Builder).Append(0)
			l.ValueBuilder().AppendNull()
		}, `["1970-01-01",null]`, `[1970-01-01,NULL]`},
	} {
		b := array.NewBuilder(memory.DefaultAllocator, c.typ)
		c.add(b)
		arr := b.NewArray()
		for bare, want := range map[bool]string{false: c.json, true: c.bare} {
			got, err := appendValue(nil, arr, 0, bare)
			require.NoError(t, err)
			require.Equal(t, want, string(got), "%s", c.typ)
		}
		require.True(t, json.Valid([]byte(c.json)))
		arr.Release()
		b.Release()
	}
}

// TestDiffForms writes one difference in each form, which must all tell the
// same rows.
func TestDiffForms(t *testing.T) {
	m := newModel(t, 2, true, 3)
	from := m.epochs[0]
	for range 6 {
		m.step()
	}
	long := m.newRow()
	long[3] = 39
	f := m.write([]modelRow{long})
	m.rows = append(m.rows, modelPlace{long, f.Path, 0})
	m.commit(&lake.Change{Add: []*lake.NewFile{f}})
	for _, from := range []modelEpoch{from, m.epochs[4]} {
		to := m.epochs[len(m.epochs)-1]
		mem := memory.NewCheckedAllocator(memory.DefaultAllocator)
		d, err := OpenDiff(t.Context(), DiffOptions{Store: m.faults, Table: modelIdent, From: from.Point, To: to.Point, TempDir: t.TempDir(), Allocator: mem, MemoryBytes: 4000})
		require.NoError(t, err)

		var lines bytes.Buffer
		counts, err := d.WriteJSON(t.Context(), &lines)
		require.NoError(t, err)
		all := counts.Inserted + counts.Updated + counts.Deleted
		require.Positive(t, all)
		seen := map[string]int64{}
		for line := range strings.Lines(lines.String()) {
			var row struct{ Change string }
			require.NoError(t, json.Unmarshal([]byte(line), &row), line)
			seen[row.Change]++
		}
		require.Equal(t, map[string]int64{"": 2, "inserted": counts.Inserted, "updated": counts.Updated, "deleted": counts.Deleted},
			map[string]int64{"": seen[""], "inserted": seen["inserted"], "updated": seen["updated"], "deleted": seen["deleted"]})

		for _, limit := range []int64{0, 3} {
			var text bytes.Buffer
			again, err := d.WriteText(t.Context(), &text, limit)
			require.NoError(t, err)
			require.Equal(t, counts, again)
			require.Contains(t, text.String(), counts.String())
			_, rows, _ := strings.Cut(text.String(), "\n\n")
			if limit == 0 {
				require.EqualValues(t, all, strings.Count(rows, "\n"))
			} else {
				require.EqualValues(t, limit+1, strings.Count(rows, "\n"))
				require.Contains(t, rows, "more; --limit 0")
			}
		}

		var pq bytes.Buffer
		again, err := d.WriteParquet(t.Context(), &pq)
		require.NoError(t, err)
		require.Equal(t, counts, again)
		rd, err := file.NewParquetReader(bytes.NewReader(pq.Bytes()))
		require.NoError(t, err)
		require.Equal(t, to.LSN.String(), *rd.MetaData().KeyValueMetadata().FindValue("firn.to.lsn"))
		fr, err := pqarrow.NewFileReader(rd, pqarrow.ArrowReadProperties{}, mem)
		require.NoError(t, err)
		tab, err := fr.ReadTable(t.Context())
		require.NoError(t, err)
		kinds := map[string]int64{}
		for _, c := range tab.Column(0).Data().Chunks() {
			for i := range c.Len() {
				kinds[c.ValueStr(i)]++
			}
		}
		require.EqualValues(t, d.Schema().NumFields()+1, tab.NumCols())
		require.Equal(t, [4]int64{counts.Inserted, counts.Updated, counts.Updated, counts.Deleted},
			[4]int64{kinds["INSERT"], kinds["UPDATE_BEFORE"], kinds["UPDATE_AFTER"], kinds["DELETE"]})
		tab.Release()
		mem.AssertSize(t, 0)
	}
}

func TestClip(t *testing.T) {
	require.Equal(t, strings.Repeat("é", 80)+"…", clip(strings.Repeat("é", 81)))
	require.Equal(t, "short", clip("short"))
}

package snapshot

import (
	"fmt"
	"maps"

	"github.com/apache/arrow-go/v18/parquet"
	pqmeta "github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// boundable are the properties by which a file's manifest entry gets bounds of
// its columns, except of those of which a row group's greatest value is not known,
// for it is too long, or empty: iceberg-go would take the bound of the other row
// groups for the file's, and readers would not find that one's rows.
func boundable(props iceberg.Properties, meta *pqmeta.FileMetaData) (iceberg.Properties, error) {
	out := props
	for g := range meta.NumRowGroups() {
		group := meta.RowGroup(g)
		for leaf := range group.NumColumns() {
			chunk, err := group.ColumnChunk(leaf)
			if err != nil {
				return nil, fmt.Errorf("read statistics of row group %d: %w", g, err)
			}
			known, err := minMaxKnown(chunk)
			if err != nil {
				return nil, fmt.Errorf("read statistics of row group %d: %w", g, err)
			}
			mode := "counts"
			if unordered(meta.Schema.Column(leaf)) {
				mode = "none" // without statistics iceberg-go counts the first row group's values only
			} else if known {
				continue
			}
			path := meta.Schema.Column(leaf).ColumnPath()
			name := path[0]
			if len(path) > 1 { // tags.list.element
				name += "." + path[len(path)-1]
			}
			if len(out) == len(props) {
				out = maps.Clone(props)
				if out == nil {
					out = iceberg.Properties{}
				}
			}
			out[table.MetricsModeColumnConfPrefix+"."+name] = mode
		}
	}
	return out, nil
}

// minMaxKnown: of values that may be long, a greatest one that is too long is left
// out of the statistics, and comes back as an empty one. (A least one that does is
// no harm.)
func minMaxKnown(chunk *pqmeta.ColumnChunkMetaData) (bool, error) {
	if chunk.Type() != parquet.Types.ByteArray || chunk.NumValues() == 0 {
		return true, nil
	}
	stats, err := chunk.Statistics()
	if err != nil || stats == nil {
		return false, err
	}
	if stats.HasNullCount() && stats.NullCount() == chunk.NumValues() {
		return true, nil
	}
	texts, ok := stats.(*pqmeta.ByteArrayStatistics)
	return ok && texts.HasMinMax() && len(texts.Max()) > 0, nil
}

// unordered says that readers don't agree on the order of a column's values, so
// that they get no least and greatest one to skip files and row groups by. Uuids
// are: Iceberg's Java library, and with it Spark and Trino, takes their halves for
// signed numbers (apache/iceberg#14216) and finds no row where a file has some
// below and some above 80000000-…; Parquet and the other readers compare bytes.
func unordered(c *schema.Column) bool {
	_, id := c.LogicalType().(schema.UUIDLogicalType)
	return id
}

package snapshot

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
)

const (
	// bloomProperty and a column's name ask for Bloom filters of it, of any writer
	// of Iceberg tables.
	bloomProperty = "write.parquet.bloom-filter-enabled.column."
	// bloomShare is the part of a row group that the first batch of a file must be
	// for it to have filters: they are made for a full row group, a quarter of a
	// megabyte each, which is more than all else in a small file.
	bloomShare = 16
)

// BloomFilters are names of columns of which data files get Bloom filters.
type BloomFilters []string

// Check says which column of a schema can't have them; nil: none.
func (b BloomFilters) Check(s *iceberg.Schema) error {
	var errs []error
	for _, name := range b {
		at := slices.IndexFunc(s.Fields(), func(f iceberg.NestedField) bool { return f.Name == name })
		if at < 0 {
			errs = append(errs, fmt.Errorf("there is no column %s", name))
		} else if !bloomable(s.Field(at).Type) {
			errs = append(errs, fmt.Errorf("column %s is of type %s, for which there are no Bloom filters", name, s.Field(at).Type))
		}
	}
	return errors.Join(errs...)
}

// bloomable: of values that are looked for by equality, and are the same bytes in
// all writers' files.
func bloomable(t iceberg.Type) bool {
	switch t.(type) {
	case iceberg.Int32Type, iceberg.Int64Type, iceberg.DateType, iceberg.TimestampType, iceberg.TimestampTzType,
		iceberg.StringType, iceberg.BinaryType, iceberg.UUIDType:
		return true
	}
	return false
}

// setBloomFilters asks for filters of just these columns; nil: of those that the
// table has.
func (m *metadata) setBloomFilters(columns BloomFilters) error {
	if columns == nil {
		return nil
	}
	maps.DeleteFunc(m.properties, func(k, _ string) bool { return strings.HasPrefix(k, bloomProperty) })
	for _, name := range columns {
		m.properties[bloomProperty+name] = "true"
	}
	return columns.Check(m.schema())
}

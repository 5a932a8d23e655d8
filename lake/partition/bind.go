package partition

import (
	"fmt"
	"math/big"
	"slices"

	"github.com/apache/iceberg-go"
)

// Field is a term bound to a field of a schema, and so beyond a rename.
type Field struct {
	Source    int    `json:"source"` // field id
	Transform string `json:"transform"`
	Name      string `json:"name"` // which the table may have to alter
}

// Place is one partition of one spec: where the rows of a data file belong.
type Place struct {
	Spec   iceberg.PartitionSpec
	Values map[int]any // by partition field id; NULL is nil
}

// Bind finds the columns of by in a schema. An error names what is wrong with
// which term.
func Bind(by By, sc *iceberg.Schema) ([]Field, error) {
	var fields []Field
	for _, t := range by {
		f, ok := sc.FindFieldByName(t.Column)
		if !ok {
			return nil, fmt.Errorf("partition by %s: there is no column %s", t, t.Column)
		}
		if f.Type.Equals(iceberg.PrimitiveTypes.UUID) {
			return nil, fmt.Errorf("partition by %s: the column is uuid, by whose partitions readers would miss rows: "+
				"Spark and Trino order uuids (apache/iceberg#14216), DuckDB to 1.5 hashes them (duckdb/duckdb-iceberg#1325) in ways of their own", t)
		}
		if !suits(t.Transform, f.Type) {
			return nil, fmt.Errorf("partition by %s: the column is %s in the lake, for which there is no such partition", t, f.Type)
		}
		if tr, ok := t.Transform.(iceberg.TruncateTransform); ok && tooWide(tr.Width, f.Type) {
			return nil, fmt.Errorf("partition by %s: %d is too much for a column that is %s in the lake", t, tr.Width, f.Type)
		}
		b := Field{Source: f.ID, Transform: t.Transform.String(), Name: fieldName(t)}
		for _, was := range fields {
			// Readers take two of the kind for a mistake.
			if was.Source == b.Source && (was.Transform == b.Transform || temporal(was.Transform) && temporal(b.Transform)) {
				return nil, fmt.Errorf("partition by %s: one partition by %s is enough", t, t.Column)
			}
		}
		fields = append(fields, b)
	}
	return fields, nil
}

func temporal(transform string) bool {
	return slices.Contains([]string{"year", "month", "day", "hour"}, transform)
}

// suits says whether values of a type can be partitioned so. Floating point
// numbers can't: what is equal there is a matter of opinion.
func suits(t iceberg.Transform, typ iceberg.Type) bool {
	switch typ.(type) {
	case iceberg.BooleanType, iceberg.Int32Type, iceberg.Int64Type, iceberg.DateType, iceberg.TimeType, iceberg.TimestampType,
		iceberg.TimestampTzType, iceberg.DecimalType, iceberg.StringType, iceberg.BinaryType:
		return t.CanTransform(typ)
	}
	return false
}

// tooWide says whether values of a type may, truncated so, come to what can't be
// told in a manifest: below zero it is away from zero that they go, and a decimal
// has there as many bytes as its digits need. Readers in Java reckon with 32 bits
// where the type has them, beyond which half of them is the most that goes well.
func tooWide(width int, typ iceberg.Type) bool {
	switch typ := typ.(type) {
	case iceberg.Int32Type:
		return width > 1<<30
	case iceberg.DecimalType:
		w := big.NewInt(int64(width))
		most := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(typ.Precision())), nil)
		most.Sub(most, big.NewInt(1))
		limit := new(big.Int).Lsh(big.NewInt(1), uint(most.BitLen()/8*8+7))
		most.Add(most, w).Sub(most, big.NewInt(1)).Div(most, w).Mul(most, w)
		return most.Cmp(limit) > 0
	}
	return false
}

// fieldName is the name that other writers give such a field.
func fieldName(t Term) string {
	switch tr := t.Transform.(type) {
	case iceberg.IdentityTransform:
		return t.Column
	case iceberg.BucketTransform:
		return fmt.Sprintf("%s_bucket_%d", t.Column, tr.NumBuckets)
	case iceberg.TruncateTransform:
		return fmt.Sprintf("%s_trunc_%d", t.Column, tr.Width)
	}
	return t.Column + "_" + t.Transform.String()
}

package partition

import (
	"fmt"
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
		if !suits(t.Transform, f.Type) {
			return nil, fmt.Errorf("partition by %s: the column is %s in the lake, for which there is no such partition", t, f.Type)
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
		iceberg.TimestampTzType, iceberg.DecimalType, iceberg.StringType, iceberg.UUIDType, iceberg.BinaryType:
		return t.CanTransform(typ)
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

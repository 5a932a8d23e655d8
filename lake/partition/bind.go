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
	Name      string `json:"name"`
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
		b := Field{Source: f.ID, Transform: t.Transform.String(), Name: fieldName(t, sc)}
		for _, was := range fields {
			// Readers take two of the kind for a mistake.
			if was.Source == b.Source && (was.Transform == b.Transform || temporal(was.Transform) && temporal(b.Transform)) {
				return nil, fmt.Errorf("partition by %s: one partition by %s is enough", t, t.Column)
			}
		}
		for n := 2; slices.ContainsFunc(fields, func(x Field) bool { return x.Name == b.Name }); n++ {
			b.Name = fmt.Sprintf("%s_%d", fieldName(t, sc), n)
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

// fieldName is the name that other writers give such a field, or, where a
// column has that, one like it: a partition field may share a column's name
// only if it holds the column's values.
func fieldName(t Term, sc *iceberg.Schema) string {
	name := t.Column
	switch tr := t.Transform.(type) {
	case iceberg.IdentityTransform:
		return name
	case iceberg.BucketTransform:
		name = fmt.Sprintf("%s_bucket_%d", name, tr.NumBuckets)
	case iceberg.TruncateTransform:
		name = fmt.Sprintf("%s_trunc_%d", name, tr.Width)
	default:
		name += "_" + t.Transform.String()
	}
	for {
		if _, taken := sc.FindFieldByName(name); !taken {
			return name
		}
		name += "_part"
	}
}

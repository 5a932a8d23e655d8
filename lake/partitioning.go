package lake

import (
	"slices"

	"firn/lake/partition"
)

// partitioned is the layout partitioned as the user says. What the user says is
// looked up in the columns once, when it is new: a table whose columns have been
// renamed since goes on by their ids.
func (l *Layout) partitioned(by partition.By) (*Layout, error) {
	if by.String() == l.PartitionBy {
		return l, nil
	}
	fields, err := partition.Bind(by, l.schema)
	if err != nil {
		return l, err
	}
	next := *l
	next.PartitionBy, next.Partition = by.String(), fields
	return &next, nil
}

// inherit goes on with old's partitions, of columns that are still there; whole
// says that none is missing.
func (l *Layout) inherit(old *Layout) (whole bool) {
	l.PartitionBy, l.Partition = old.PartitionBy, nil
	for _, f := range old.Partition {
		if slices.ContainsFunc(l.Columns, func(c Column) bool { return c.FieldID == f.Source }) {
			l.Partition = append(l.Partition, f)
		}
	}
	return len(l.Partition) == len(old.Partition)
}

// repartition is the layout of a table that was there before, partitioned as the
// user says now. Where that can't be done it stays as it is.
func (s *session) repartition(id Ident, l *Layout) *Layout {
	next, err := l.partitioned(s.partitionBy(id))
	if err != nil {
		s.log.Warn("the table stays partitioned as it is", "table", id.String(), "by", l.PartitionBy, "err", err)
	} else if next != l {
		s.log.Info("partitions changed: new rows go by the new ones, files that are there stay", "table", id.String(), "from", l.PartitionBy, "to", next.PartitionBy)
	}
	return next
}

func (s *session) partitionBy(id Ident) partition.By {
	if s.o.PartitionBy == nil {
		return nil
	}
	return s.o.PartitionBy(id)
}

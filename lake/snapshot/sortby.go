package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// SortBy is the order that a table's rows are to lie in within its data files,
// by names of columns. Written as in SQL: created_at, "User" desc nulls last.
type SortBy []SortColumn

// SortColumn is a column of a SortBy.
type SortColumn struct {
	Name             string
	Desc, NullsFirst bool
}

// ParseSortBy reads an order as ORDER BY of Postgres has it, names of columns
// only: ascending with NULLs last is the default, descending has them first.
func ParseSortBy(s string) (SortBy, error) {
	by := SortBy{}
	for rest, more := s, true; more; {
		var c SortColumn
		var err error
		if c.Name, rest, err = sortName(rest); err != nil {
			return nil, err
		}
		var words string
		words, rest, more = strings.Cut(rest, ",")
		if err := c.read(strings.Fields(strings.ToLower(words))); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(by, func(b SortColumn) bool { return b.Name == c.Name }) {
			return nil, fmt.Errorf("column %s is there twice", c.Name)
		}
		by = append(by, c)
	}
	return by, nil
}

// sortName cuts a column's name off, which quotes may surround.
func sortName(s string) (name, rest string, err error) {
	s = strings.TrimSpace(s)
	if quoted, ok := strings.CutPrefix(s, `"`); ok {
		for {
			part, after, found := strings.Cut(quoted, `"`)
			if !found {
				return "", "", fmt.Errorf(`a closing " is missing in %q`, s)
			}
			name += part
			if quoted, found = strings.CutPrefix(after, `"`); !found {
				rest = after
				break
			}
			name += `"`
		}
	} else {
		end := strings.IndexAny(s, ", \t\n")
		if end < 0 {
			end = len(s)
		}
		name, rest = s[:end], s[end:]
	}
	if name == "" {
		return "", "", errors.New("want columns such as created_at, user_id desc nulls last")
	}
	return name, rest, nil
}

// read takes what follows the name.
func (c *SortColumn) read(words []string) error {
	said := strings.Join(words, " ")
	if len(words) > 0 && (words[0] == "asc" || words[0] == "desc") {
		c.Desc = words[0] == "desc"
		words = words[1:]
	}
	c.NullsFirst = c.Desc
	if len(words) == 2 && words[0] == "nulls" && (words[1] == "first" || words[1] == "last") {
		c.NullsFirst = words[1] == "first"
		words = nil
	}
	if len(words) > 0 {
		return fmt.Errorf("after column %s want asc or desc, nulls first or nulls last, not %q", c.Name, said)
	}
	return nil
}

// UnmarshalText is ParseSortBy.
func (by *SortBy) UnmarshalText(b []byte) (err error) {
	*by, err = ParseSortBy(string(b))
	return err
}

// Check says which column rows of a schema can't be sorted by; nil: none.
func (by SortBy) Check(s *iceberg.Schema) error {
	_, err := by.fields(s)
	return err
}

// fields are those of the sort order; an error says which column can't be
// sorted by.
func (by SortBy) fields(s *iceberg.Schema) ([]table.SortField, error) {
	var out []table.SortField
	for _, c := range by {
		at := slices.IndexFunc(s.Fields(), func(f iceberg.NestedField) bool { return f.Name == c.Name })
		if at < 0 {
			return nil, fmt.Errorf("there is no column %s", c.Name)
		}
		f := s.Field(at)
		if !orderable(f.Type) {
			return nil, fmt.Errorf("column %s is of type %s, which has no order", c.Name, f.Type)
		}
		field := table.SortField{SourceIDs: []int{f.ID}, Transform: iceberg.IdentityTransform{}, Direction: table.SortASC, NullOrder: table.NullsLast}
		if c.Desc {
			field.Direction = table.SortDESC
		}
		if c.NullsFirst {
			field.NullOrder = table.NullsFirst
		}
		out = append(out, field)
	}
	return out, nil
}

// setSortOrder makes the order that by asks for the default, under the id of an
// equal one if there is one. by nil leaves it, if its columns are still there.
// After an error the table has no order: readers refuse one of columns that the
// schema does not have.
func (m *metadata) setSortOrder(by SortBy) error {
	fields, err := by.fields(m.schema())
	if by == nil {
		if !slices.ContainsFunc(m.sortOrder(), func(f table.SortField) bool {
			_, ok := m.schema().FindFieldByID(f.SourceID())
			return !ok
		}) {
			return nil
		}
		err = errors.New("a column of it is gone")
	}
	id, next := -1, table.InitialSortOrderID
	for _, o := range m.sortOrders {
		next = max(next, o.OrderID()+1)
		if slices.EqualFunc(fieldsOf(o), fields, table.SortField.Equals) {
			id = o.OrderID()
		}
	}
	if id < 0 {
		id = next
		if len(fields) == 0 {
			id = table.UnsortedSortOrderID
		}
		o, failed := table.NewSortOrder(id, fields)
		if failed != nil {
			return failed
		}
		m.sortOrders = append(slices.Clip(m.sortOrders), o)
	}
	m.sortOrderID = id
	return err
}

// sortOrder are the fields of the default order; none: the table has none.
func (m *metadata) sortOrder() []table.SortField {
	for _, o := range m.sortOrders {
		if o.OrderID() == m.sortOrderID {
			return fieldsOf(o)
		}
	}
	return nil
}

func fieldsOf(o table.SortOrder) (out []table.SortField) {
	for _, f := range o.Fields() {
		out = append(out, f)
	}
	return out
}

// sorts says whether rewrites sort the table's rows: not by an order that
// another engine gave it of more than columns.
func (m *metadata) sorts() bool {
	fields := m.sortOrder()
	return len(fields) > 0 && !slices.ContainsFunc(fields, func(f table.SortField) bool {
		_, identity := f.Transform.(iceberg.IdentityTransform)
		column, ok := m.schema().FindFieldByID(f.SourceID())
		return !identity || !ok || !orderable(column.Type) || !slices.ContainsFunc(m.schema().Fields(), func(c iceberg.NestedField) bool { return c.ID == f.SourceID() })
	})
}

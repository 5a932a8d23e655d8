package snapshot

import (
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/stretchr/testify/require"

	"firn/lake"
)

func TestParseSortBy(t *testing.T) {
	for s, want := range map[string]SortBy{
		"created_at":                                 {{Name: "created_at"}},
		" a asc , b DESC,c desc nulls LAST ":         {{Name: "a"}, {Name: "b", Desc: true, NullsFirst: true}, {Name: "c", Desc: true}},
		`"a, ""b""" desc,d nulls first`:              {{Name: `a, "b"`, Desc: true, NullsFirst: true}, {Name: "d", NullsFirst: true}},
		"größe asc nulls first,\n\t\"x\" nulls last": {{Name: "größe", NullsFirst: true}, {Name: "x"}},
	} {
		got, err := ParseSortBy(s)
		require.NoError(t, err, s)
		require.Equal(t, want, got, s)
	}
	for s, want := range map[string]string{
		"":                 "want columns such as",
		"a,":               "want columns such as",
		"a desc asc":       `after column a want asc or desc, nulls first or nulls last, not "desc asc"`,
		"a nulls":          `not "nulls"`,
		"lower(a) b":       `after column lower(a) want`,
		`"a`:               `a closing " is missing`,
		"a, b desc, a asc": "column a is there twice",
	} {
		_, err := ParseSortBy(s)
		require.ErrorContains(t, err, want, s)
	}
}

// The sort order follows the setting: a new id for each that is new, the old one
// for one that comes again; none where the columns don't allow it.
func TestSortOrderEvolves(t *testing.T) {
	h := newHarness(t, 2, 1)
	start := func(by string) {
		h.tab.o.SortBy = SortBy{}
		if by != "" {
			h.sortBy(by)
		}
		if h.tab.metaURI != "" {
			h.tab = h.load(h.tab.metaURI)
		}
	}
	order := func() string {
		h.commit(&lake.Change{Stamp: h.stamp("stream"), Add: []*lake.NewFile{h.write(h.tab.Schema(), 10)}})
		m := h.metadata()
		require.Equal(t, m.DefaultSortOrder(), m.SortOrder().OrderID())
		require.Equal(t, len(m.SortOrders()), len(h.sameAsLoaded().meta.sortOrders))
		return m.SortOrder().String()
	}
	unsorted := func() (n int) {
		for _, f := range h.tab.Files() {
			if f.Unsorted {
				n++
			}
		}
		return n
	}
	start("at, name desc nulls last")
	require.Contains(t, order(), "1: [\n7 asc nulls-last\n2 desc nulls-last\n]")
	require.Equal(t, 1, unsorted())
	c := &lake.Change{Stamp: h.stamp("stream")}
	r := h.rewrite()
	require.Equal(t, 1, *r.Output.Entry.SortOrderID())
	h.install(c, r)
	h.commit(c)
	require.Zero(t, unsorted())
	start("id")
	require.Equal(t, 1, unsorted())
	require.Contains(t, order(), "2: [\n1 asc nulls-last\n]")
	start("")
	require.Zero(t, unsorted())
	require.Contains(t, order(), "0: [")
	start("at, name desc nulls last")
	require.Contains(t, order(), "1: [")
	require.Len(t, h.metadata().SortOrders(), 3)
	require.Equal(t, 3, unsorted())

	// What can't be sorted by is said, and changes nothing else.
	for by, want := range map[string]string{"nope": "there is no column nope", "at, tags": "column tags is of type list<string>, which has no order", "tags.element": "no column"} {
		parsed, err := ParseSortBy(by)
		require.NoError(t, err)
		m := h.tab.meta.clone()
		require.ErrorContains(t, m.setSortOrder(parsed), want)
		require.Zero(t, m.sortOrderID)
	}
	// A column of the order is dropped, and comes back as another.
	without := iceberg.NewSchema(0, testSchema.Fields()[:5]...)
	h.commit(&lake.Change{Stamp: h.stamp("schema"), Schema: without})
	require.Zero(t, h.metadata().DefaultSortOrder())
	require.Zero(t, unsorted())
	again := iceberg.NewSchema(0, append(without.Fields(), iceberg.NestedField{ID: 9, Name: "at", Type: iceberg.PrimitiveTypes.Date})...)
	h.commit(&lake.Change{Stamp: h.stamp("schema"), Schema: again})
	require.Contains(t, h.metadata().SortOrder().String(), "3: [\n9 asc nulls-last\n2 desc nulls-last\n]")
	h.tab.o.SortBy = nil // as one sees it who has no settings
	require.Equal(t, 3, h.load(h.tab.metaURI).meta.sortOrderID)

	// One that another engine gave the table is left to it.
	m := h.tab.meta.clone()
	o, err := table.NewSortOrder(7, []table.SortField{{SourceIDs: []int{1}, Transform: iceberg.BucketTransform{NumBuckets: 4}, Direction: table.SortASC, NullOrder: table.NullsFirst}})
	require.NoError(t, err)
	m.sortOrders, m.sortOrderID = append(m.sortOrders, o), 7
	require.NoError(t, m.setSortOrder(nil))
	require.Equal(t, 7, m.sortOrderID)
	require.False(t, m.sorts())
	require.Zero(t, h.tab.meta.sortOrders[0].OrderID())
}

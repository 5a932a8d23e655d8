package catalog_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"firn/catalog"
	"firn/lake/laketest"
)

// Random changes through two logs that don't know of one another. Whoever
// reads an entry, at any time, from full or delta, sees the same state.
func TestRule06RoundTrip(t *testing.T) {
	kinds := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		s := laketest.NewMemoryStore()
		c := &clock{}
		logs := []*catalog.Log{born(t, s, c.options("stream")), open(t, s, c.options("server"))}
		want := map[uint64]string{}
		names := rapid.SampledFrom([]string{"a", "b", "c.d", "with space", "ünï", "q\"'"})
		for range rapid.IntRange(1, 60).Draw(rt, "commits") {
			who := rapid.IntRange(0, 1).Draw(rt, "who")
			c.pass(time.Duration(rapid.IntRange(0, 40).Draw(rt, "pause")) * time.Minute)
			var ops []func(*catalog.State)
			for range rapid.IntRange(0, 4).Draw(rt, "ops") {
				ops = append(ops, drawOp(rt, names, c))
			}
			if who == 0 && rapid.Bool().Draw(rt, "epoch") {
				ops = append(ops, func(n *catalog.State) { epoch(n, "orders") })
			}
			st, err := logs[who].Commit(t.Context(), func(n *catalog.State) error {
				for _, op := range ops {
					op(n)
				}
				return nil
			})
			if err != nil {
				rt.Fatal(err)
			}
			want[st.Number] = catalog.Dump(st)
			data, err := s.Get(t.Context(), catalog.EntryKey(st.Number))
			require.NoError(rt, err)
			kind, err := catalog.EntryKind(st.Number, data)
			require.NoError(rt, err)
			kinds[kind]++
			require.Contains(rt, string(data), `"lsn":"`+st.LSN.String()+`"`)
		}
		fresh := open(t, s, catalog.LogOptions{})
		require.Equal(rt, want[fresh.Head().Number], catalog.Dump(fresh.Head()))
		for number, dump := range want {
			st, err := fresh.Entry(t.Context(), number)
			require.NoError(rt, err)
			require.Equal(rt, dump, catalog.Dump(st))
		}
	})
	require.Greater(t, kinds["full"], 10)
	require.Greater(t, kinds["delta"], 10)
}

func drawOp(rt *rapid.T, names *rapid.Generator[string], c *clock) func(*catalog.State) {
	name, level := names.Draw(rt, "name"), names.Draw(rt, "level")
	ns := []string{"ns", level}
	id := catalog.Ident{Namespace: ns, Name: name}
	number := rapid.Int64().Draw(rt, "number")
	switch rapid.IntRange(0, 8).Draw(rt, "op") {
	case 0, 1:
		return func(n *catalog.State) {
			n.PutNamespace(ns, map[string]string{"k": name})
			n.PutTable(id, catalog.Table{UUID: name, SnapshotID: number, SequenceNumber: number / 2})
		}
	case 2:
		return func(n *catalog.State) { n.DropTable(id) }
	case 3:
		return func(n *catalog.State) {
			n.PutNamespace(ns, nil)
			n.PutView(id, catalog.View{UUID: name, Metadata: fmt.Sprint(number)})
		}
	case 4:
		return func(n *catalog.State) { n.DropView(id) }
	case 5:
		return func(n *catalog.State) {
			for id := range n.Tables() {
				if slices.Equal(id.Namespace, ns) {
					return
				}
			}
			for id := range n.Views() {
				if slices.Equal(id.Namespace, ns) {
					return
				}
			}
			n.DropNamespace(ns)
		}
	case 6:
		return func(n *catalog.State) {
			if e := n.Epochs(); len(e) > 0 {
				n.PutTag(name, catalog.Tag{Kept: e[int(uint64(number)%uint64(len(e)))], Created: day})
			}
		}
	case 7:
		return func(n *catalog.State) { n.DropTag(name) }
	}
	return func(n *catalog.State) {
		n.PutOutcome(name, catalog.Outcome{Time: day.Add(c.boot()), Result: fmt.Sprint(number)})
	}
}

// What is dropped stays dropped: the delta has its tombstone.
func TestRule06Tombstones(t *testing.T) {
	s := laketest.NewMemoryStore()
	l := born(t, s, catalog.LogOptions{})
	commit(t, l, func(n *catalog.State) {
		for i := range 100 {
			n.PutTable(ident(fmt.Sprint("t", i)), catalog.Table{UUID: fmt.Sprint(i), Location: "memory://some/where"})
		}
	})
	st := commit(t, l, func(n *catalog.State) {
		require.True(t, n.DropTable(ident("t7")))
		require.False(t, n.DropTable(ident("t7")))
		require.False(t, n.DropTable(ident("none")))
		n.PutTable(ident("new"), catalog.Table{UUID: "new"})
		require.True(t, n.DropTable(ident("new")), "made and dropped between two entries")
	})
	data, err := s.Get(t.Context(), catalog.EntryKey(st.Number))
	require.NoError(t, err)
	kind, err := catalog.EntryKind(st.Number, data)
	require.NoError(t, err)
	require.Equal(t, "delta", kind)
	require.Contains(t, string(data), `"dropped":{"tables":[{"namespace":["public"],"name":"t7"}]}`)
	head := reopened(t, s)
	require.Equal(t, 99, head.TableCount())
	_, there := head.Table(ident("t7"))
	require.False(t, there)
	// It may come back.
	commit(t, l, func(n *catalog.State) { n.PutTable(ident("t7"), catalog.Table{UUID: "again"}) })
	again, there := reopened(t, s).Table(ident("t7"))
	require.True(t, there)
	require.Equal(t, "again", again.UUID)
}

func TestRule06OutcomesLastAnHour(t *testing.T) {
	s := laketest.NewMemoryStore()
	c := &clock{}
	l := born(t, s, c.options(""))
	commit(t, l, func(n *catalog.State) { n.PutOutcome("k", catalog.Outcome{Time: day, Result: "204"}) })
	c.pass(59 * time.Minute)
	st := commit(t, l, func(n *catalog.State) { n.PutNamespace([]string{"x"}, nil) })
	o, ok := st.Outcome("k")
	require.True(t, ok)
	require.Equal(t, "204", o.Result)
	c.pass(2 * time.Minute)
	commit(t, l, func(n *catalog.State) { n.PutNamespace([]string{"y"}, nil) })
	_, ok = reopened(t, s).Outcome("k")
	require.False(t, ok)
}

// many opens a log with a thousand quiet tables.
func many(t testing.TB) (*laketest.MemoryStore, *catalog.Log) {
	s := laketest.NewMemoryStore()
	l := born(t, s, catalog.LogOptions{})
	commit(t, l, func(n *catalog.State) {
		for i := range 1000 {
			name := fmt.Sprintf("table_%04d", i)
			n.PutTable(ident(name), catalog.Table{
				UUID: "6f1b1c0a-5a3f-4a8e-9a83-3e1c1e2f4b5d", Location: "s3://lake/shop/public/" + name,
				Metadata:   "s3://lake/shop/public/" + name + "/metadata/00042-6f1b1c0a-5a3f-4a8e-9a83-3e1c1e2f4b5d.metadata.json",
				SnapshotID: 1 << 60, SequenceNumber: 42,
				Mirror: &catalog.Mirror{OID: 16384 + uint32(i), LSN: 1000, State: catalog.Streaming},
			})
		}
	})
	return s, l
}

// With a thousand tables an epoch writes what it changes, until that is half
// of a full entry.
func TestRule06DeltasStaySmall(t *testing.T) {
	s, l := many(t)
	size := func() int {
		data, err := s.Get(t.Context(), catalog.EntryKey(l.Head().Number))
		require.NoError(t, err)
		return len(data)
	}
	full := size()
	require.Greater(t, full, 300_000)
	commit(t, l, func(n *catalog.State) { epoch(n, "table_0001") })
	require.Less(t, size(), 2000)
	for range 200 {
		commit(t, l, func(n *catalog.State) { epoch(n, "table_0001") })
		require.Less(t, size(), 40_000)
	}
	bytes := 0
	for i := range 400 {
		commit(t, l, func(n *catalog.State) { epoch(n, fmt.Sprintf("table_%04d", i)) })
		bytes += size()
		require.Less(t, size(), full+60_000)
	}
	require.Less(t, bytes/400, full*2/5, "bytes per epoch")
}

func BenchmarkCommitOfAThousandTables(b *testing.B) {
	_, l := many(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		commit(b, l, func(n *catalog.State) { epoch(n, fmt.Sprintf("table_%04d", i%5)) })
		i++
	}
}

func TestHandedOutStateIsImmutable(t *testing.T) {
	l := born(t, laketest.NewMemoryStore(), catalog.LogOptions{})
	first := commit(t, l, func(n *catalog.State) { epoch(n, "orders") })
	dump := catalog.Dump(first)
	table, _ := first.Table(ident("orders"))
	table.Mirror.State = catalog.Quarantined
	mine := catalog.Mirror{Notes: map[string]string{"a": "1"}}
	commit(t, l, func(n *catalog.State) {
		epoch(n, "orders")
		n.Source.Timeline = 2
		n.PutTable(ident("mine"), catalog.Table{Mirror: &mine})
	})
	mine.Notes["a"] = "2"
	kept, _ := l.Head().Table(ident("mine"))
	require.Equal(t, "1", kept.Mirror.Notes["a"])
	require.Equal(t, dump, catalog.Dump(first))
}

func TestNewerFormatIsRefused(t *testing.T) {
	err := catalog.DecodeEntry(0, []byte(`{"firn":2,"kind":"full","number":0,"commit_id":"x"}`))
	require.ErrorContains(t, err, "use a newer firn")
	require.NotErrorIs(t, err, catalog.ErrCorrupt)
	for _, bad := range []string{``, `{`, `[]`, `{}`, `{"firn":1,"kind":"full","number":1,"commit_id":"x"}`,
		`{"firn":1,"kind":"delta","number":0,"commit_id":"x"}`, `{"firn":1,"kind":"full","number":0,"commit_id":"x","lsn":"zz"}`} {
		require.ErrorIs(t, catalog.DecodeEntry(0, []byte(bad)), catalog.ErrCorrupt, bad)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	s := laketest.NewMemoryStore()
	l := born(f, s, catalog.LogOptions{})
	commit(f, l, func(n *catalog.State) { epoch(n, "orders"); n.PutView(ident("v"), catalog.View{}) })
	for n := range l.Head().Number + 1 {
		data, err := s.Get(f.Context(), catalog.EntryKey(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"firn":1,"kind":"full","number":0,"commit_id":"x","tables":[{"namespace":[],"name":""},{}],"namespaces":[{}],"views":[{"name":"\u001f"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for n := range uint64(5) {
			if err := catalog.DecodeEntry(n, data); err != nil {
				continue
			}
		}
	})
}

package index

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// small makes segments split after some hundred keys.
func small(o Options) Options {
	o.baseLog, o.overlayLog, o.heapBytes, o.directRows = 9, 8, 8<<10, 30
	o.deltaLog, o.deltaFrom, o.deltaShare = 6, 100, 1
	return o
}

var kinds = map[string]Options{"exact": {}, "wide": {Wide: true}, "multi": {Multi: true}}

// keyFor spreads numbers over the key space of the options.
func keyFor(o Options, i uint64) Key {
	if o.Wide || o.Multi {
		return Key{Hi: mix(i+1) &^ levelMask, Lo: mix(i + 1<<40)}
	}
	return Key{Lo: i}
}

// rowsOf is a model: which locations each key has.
type rowsOf map[Key]map[Loc]bool

func (m rowsOf) clone() rowsOf {
	out := make(rowsOf, len(m))
	for k, v := range m {
		out[k] = maps.Clone(v)
	}
	return out
}

func (m rowsOf) count() (n int64) {
	for _, v := range m {
		n += int64(len(v))
	}
	return n
}

func (m rowsOf) put(k Key, l Loc, multi bool) {
	if m[k] == nil || !multi {
		m[k] = map[Loc]bool{}
	}
	m[k][l] = true
}

func (m rowsOf) remove(k Key, l Loc) {
	delete(m[k], l)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// first is any location of k.
func (m rowsOf) first(k Key) (Loc, bool) {
	for l := range m[k] {
		return l, true
	}
	return Loc{}, false
}

func rowsIn(x *Index, k Key) map[Loc]bool {
	out := map[Loc]bool{}
	x.All(k, func(l Loc) bool {
		if out[l] {
			panic(fmt.Sprintf("key %v has %v twice", k, l))
		}
		out[l] = true
		return true
	})
	return out
}

// requireRows compares the index with a model, for all given keys.
func requireRows(t require.TestingT, want rowsOf, x *Index, keys []Key) {
	for _, k := range keys {
		got := rowsIn(x, k)
		if len(got) != len(want[k]) || !maps.Equal(got, want[k]) && len(got) > 0 {
			require.Equal(t, want[k], got, "key %v", k)
		}
		l, ok := x.Get(k)
		if ok != (len(got) > 0) || ok && !got[l] {
			require.Fail(t, "Get and All differ", "key %v: %v %v", k, l, ok)
		}
	}
}

func requireFiles(t require.TestingT, want []FileName, x *Index) {
	got := x.Files()
	slices.SortFunc(got, func(a, b FileName) int { return int(a.No) - int(b.No) })
	require.Equal(t, append([]FileName{}, want...), got)
}

// crash drops the index as kill -9 would: nothing is synced, nothing said.
func crash(x *Index) { x.release() }

// crashIn merges and crashes at the n-th location that is resolved; it reports
// whether the merge got that far. The index is open no longer if so.
func crashIn(t *testing.T, x *Index, n int, merge func(resolve func(Loc) (Loc, bool)) error, resolve func(Loc) (Loc, bool)) (crashed bool) {
	type killed struct{}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case killed:
			crash(x)
			crashed = true
		default:
			panic(r)
		}
	}()
	require.NoError(t, merge(func(l Loc) (Loc, bool) {
		if n--; n < 0 {
			panic(killed{})
		}
		return resolve(l)
	}))
	return false
}

// lowest is the first location of k in order.
func (m rowsOf) lowest(k Key) (low Loc, ok bool) {
	for l := range m[k] {
		if !ok || l.word() < low.word() {
			low, ok = l, true
		}
	}
	return low, ok
}

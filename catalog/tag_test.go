package catalog_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake/laketest"
)

func TestTag(t *testing.T) {
	ctx := t.Context()
	s := laketest.NewMemoryStore()
	stream := born(t, s, catalog.LogOptions{Retention: catalog.Retention{Newest: 5}})
	l := open(t, s, catalog.LogOptions{})
	_, err := l.Tag(ctx, "early", catalog.Moment{})
	require.ErrorIs(t, err, catalog.ErrNotKept, "no epoch yet")
	for range 5 { // LSN 1100 … 1500, a second apart
		commit(t, stream, func(n *catalog.State) { epoch(n, "orders") })
	}
	commit(t, stream, func(n *catalog.State) { n.PutNamespace([]string{"other"}, nil) }) // the head is no epoch
	epochs := stream.Head().Epochs()

	for _, c := range []struct {
		name string
		at   catalog.Moment
		want catalog.Kept
	}{
		{"now", catalog.Moment{}, epochs[4]},
		{"exact", catalog.Moment{LSN: 1200}, epochs[1]},
		{"between", catalog.Moment{LSN: 1399}, epochs[2]},
		{"time", catalog.Moment{Time: epochs[1].Time.Add(900 * time.Millisecond)}, epochs[1]},
		{"another", catalog.Moment{Tag: "between"}, epochs[2]},
	} {
		tag, err := l.Tag(ctx, c.name, c.at)
		require.NoError(t, err, c.name)
		require.Equal(t, c.want, tag.Kept, c.name)
		require.False(t, tag.Created.IsZero())
		number := l.Head().Number
		again, err := l.Tag(ctx, c.name, c.at)
		require.NoError(t, err)
		require.Equal(t, tag, again)
		require.Equal(t, number, l.Head().Number, "the same again is no entry")
		_, err = l.Tag(ctx, c.name, catalog.Moment{LSN: 1100})
		require.ErrorIs(t, err, catalog.ErrTagTaken)
		require.ErrorContains(t, err, c.want.LSN.String())
	}
	for at, want := range map[catalog.Moment]error{
		{LSN: 1501}: catalog.ErrNotYet, {Time: epochs[4].Time.Add(time.Second)}: catalog.ErrNotYet, {LSN: 1099}: catalog.ErrNotKept, {Tag: "nothing"}: catalog.ErrNotKept,
	} {
		_, err := l.Tag(ctx, "wrong", at)
		require.ErrorIs(t, err, want)
	}
	// The stream goes on past it, and keeps what is tagged.
	for range 10 {
		commit(t, stream, func(n *catalog.State) { epoch(n, "orders") })
	}
	kept := reopened(t, s).Epochs()
	require.Equal(t, []catalog.Kept{epochs[1], epochs[2], epochs[4]}, kept[:len(kept)-5])

	// A moment whose epoch is gone is refused, or the epoch before it taken.
	for _, at := range []catalog.Moment{{LSN: 1699}, {Time: epochs[4].Time.Add(1500 * time.Millisecond)}} {
		_, err = l.Tag(ctx, "thinned", at)
		require.ErrorIs(t, err, catalog.ErrThinned)
		require.ErrorContains(t, err, "before it epoch 5 of 2026", "%s", err)
		require.ErrorContains(t, err, "and the 5 after that are not")
		a, err := l.Head().Answer(at)
		require.NoError(t, err)
		require.False(t, a.Exact())
		require.Equal(t, catalog.Answer{Kept: epochs[4], Thinned: 5}, a)
	}
	near, err := l.TagNearest(ctx, "near", catalog.Moment{LSN: 1699})
	require.NoError(t, err)
	require.Equal(t, epochs[4], near.Kept)
	for _, at := range []catalog.Moment{{LSN: 1500}, {LSN: 2150}, {Time: epochs[4].Time}, {}, {Tag: "exact"}} {
		a, err := l.Head().Answer(at)
		require.NoError(t, err)
		require.True(t, a.Exact(), "%s: %+v", at, a)
	}
	// After the newest commit it can't be known yet, and in the future never.
	late := l.Head().CommitTime.Add(time.Second)
	_, err = l.Tag(ctx, "late", catalog.Moment{Time: late})
	require.ErrorIs(t, err, catalog.ErrNotYet)
	_, err = l.TagNearest(ctx, "late", catalog.Moment{Time: late})
	if late.After(time.Now()) {
		require.ErrorIs(t, err, catalog.ErrNotYet)
	} else {
		require.NoError(t, err)
	}
	_, err = l.TagNearest(ctx, "future", catalog.Moment{Time: time.Now().Add(time.Hour)})
	require.ErrorIs(t, err, catalog.ErrNotYet)
	require.ErrorContains(t, err, "lies in the future")

	gone, err := l.Untag(ctx, "exact")
	require.NoError(t, err)
	require.Equal(t, epochs[1], gone.Kept)
	_, err = l.Untag(ctx, "exact")
	require.ErrorIs(t, err, catalog.ErrNoTag)
	_, ok := reopened(t, s).Tag("exact")
	require.False(t, ok)
}

func TestTagNames(t *testing.T) {
	for _, name := range []string{"v1", "before-upgrade", "2026-11-23", "Q3_2026.final", "día", "1"} {
		require.NoError(t, catalog.CheckTagName(name), name)
		m, err := catalog.ParseMoment(name)
		require.NoError(t, err)
		require.Equal(t, catalog.Moment{Tag: name}, m)
	}
	for _, name := range []string{"", "latest", "main", "0/64", "16/B374D848", "2026-11-23T02:00:00Z", "2026-11-23T02:00:00+02:00", "a b", "a@b", "a/b", "a:b",
		"a\tb", "a\nb", " a", "a ", "-a", ".", ".a", "a%20", "a?b", "a#b", "a&b", "\xff", strings.Repeat("x", 200)} {
		require.ErrorIs(t, catalog.CheckTagName(name), catalog.ErrTagName, "%q", name)
	}
}

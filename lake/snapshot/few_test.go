package snapshot

import (
	"bytes"
	"cmp"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/iceberg-go"
	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/lake/laketest"
)

// However long a stream goes on, each commit leaves few delete files to open for
// a data file, and few manifests: also where shared delete files linger over many
// data files, those are rewritten, and another writer has left many manifests.
// So nothing has to be planned for them.
func TestCommitsKeepDeleteFilesAndManifestsFew(t *testing.T) {
	epochs := 2000
	switch {
	case testing.Short():
		epochs = 120
	case laketest.Race:
		epochs = 300
	}
	h := newHarness(t, 2, 77)
	c := &lake.Change{Stamp: h.stamp("snapshot")}
	for range 40 {
		c.Add = append(c.Add, h.write(testSchema, 150))
	}
	h.commit(c)
	var ofFile, shared, manifests, rewrites, foreign int
	for i := range epochs {
		c := &lake.Change{Stamp: h.stamp("stream"), Dead: map[string]*roaring.Bitmap{}, Add: []*lake.NewFile{h.write(testSchema, 12)}}
		files := slices.Clone(h.tab.files)
		if len(files) > 90 {
			c.Rewrites = []*lake.Rewritten{h.mergeSmallest(60)}
			files = slices.DeleteFunc(files, func(f *dataFile) bool {
				return slices.ContainsFunc(c.Rewrites[0].Moved, func(m lake.Moved) bool { return m.From == f.path })
			})
			rewrites++
		}
		h.rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		touched := 1 + h.rng.IntN(6)
		if i%3 == 0 {
			touched = 25 // by one delete file for all
		}
		for _, f := range files[:min(touched, len(files))] {
			if b := h.kill(f.path, 1); !b.IsEmpty() {
				c.Dead[f.path] = b
			}
		}
		h.commit(c)
		for _, f := range h.tab.files {
			ofFile = max(ofFile, len(f.deletes))
		}
		for _, of := range h.tab.shared {
			shared = max(shared, len(of))
		}
		for _, of := range [][]*manifest{h.tab.data, h.tab.deletes} {
			manifests = max(manifests, len(of))
			entries := 0
			for _, m := range of {
				entries += len(m.entries)
			}
			require.LessOrEqual(t, len(of), manifestsSpare+2*entries/manifestEntries+1, "epoch %d", i)
		}
		if i%(epochs/4) == epochs/8 {
			foreign = max(foreign, h.scatterManifests())
		}
	}
	t.Logf("%d epochs, %d rewrites: %d delete files of a data file at most, %d shared ones, %d manifests (another writer left %d)",
		epochs, rewrites, ofFile, shared, manifests, foreign)
	require.LessOrEqual(t, ofFile, liveDeletes)
	require.LessOrEqual(t, shared, liveDeletes/2)
	require.Greater(t, rewrites, epochs/100)
	require.Greater(t, foreign, manifestsSpare+1)
	h.check()
}

// mergeSmallest rewrites so many of the smallest files.
func (h *harness) mergeSmallest(n int) *lake.Rewritten {
	files := slices.SortedFunc(slices.Values(h.tab.files), func(a, b *dataFile) int { return cmp.Compare(a.rows, b.rows) })
	var inputs []lake.RewriteInput
	for _, f := range files[:n] {
		in := lake.RewriteInput{Path: f.path}
		if f.dead != nil {
			in.Dead = f.dead.Clone()
		}
		inputs = append(inputs, in)
	}
	r, err := h.tab.Rewrite(h.ctx, inputs)
	require.NoError(h.t, err)
	return r
}

// scatterManifests gives each few entries a manifest of their own, as a writer
// would that never merges them, and returns how many those of data files are.
func (h *harness) scatterManifests() int {
	t := h.tab
	for _, of := range []struct {
		content iceberg.ManifestContent
		all     *[]*manifest
	}{{iceberg.ManifestContentData, &t.data}, {iceberg.ManifestContentDeletes, &t.deletes}} {
		p := &manifestPlan{meta: t.meta, content: of.content, snapshot: t.meta.current, name: func() (string, string) {
			key := t.metadataKey(newUUID() + "-m0.avro")
			return key, t.o.Store.URI(key)
		}}
		for _, m := range *of.all {
			for few := range slices.Chunk(m.entries, 3) {
				require.NoError(h.t, p.write(&bag{spec: m.file.PartitionSpecID(), existing: few}))
			}
		}
		_, _, err := p.list(p.written, 0, t.meta.lastSequence)
		require.NoError(h.t, err)
		for i, m := range p.written {
			for _, e := range m.entries {
				e.home = m
			}
			require.NoError(h.t, h.store.Put(h.ctx, p.objects[i].key, bytes.NewReader(p.objects[i].body), int64(len(p.objects[i].body))))
		}
		*of.all = p.written
	}
	return len(t.data)
}

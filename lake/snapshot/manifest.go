package snapshot

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/apache/iceberg-go"
)

const (
	// manifestFanout is how many manifests of about one size are merged into
	// one of the next: an entry is written again once per tier, and there are
	// at most manifestFanout-1 manifests a tier.
	manifestFanout = 3
	// manifestEntries bounds a manifest, and so what touching one costs.
	manifestEntries = 2048
	// manifestAlone is from where on a touched manifest is written again by
	// itself. Among the entries of the last commits, which change most, its
	// many old ones would be written again with each of them.
	manifestAlone = 128
	// manifestsSpare is how many manifests of a spec may lie about besides two for
	// each manifestEntries. Tiers leave fewer; other writers may not.
	manifestsSpare = 16
)

// manifestPlan makes the next snapshot's manifests of one content from the
// current ones. Manifests from which nothing goes are kept as they are, but for
// small ones that are merged with what is new.
type manifestPlan struct {
	meta     *metadata
	content  iceberg.ManifestContent
	snapshot int64
	name     func() (key, uri string)

	written []*manifest
	objects []upload
}

// upload is an object to put on the store.
type upload struct {
	key  string
	body []byte
}

// plan returns the next manifests, newest first. removed entries become
// DELETED ones.
func (p *manifestPlan) plan(base []*manifest, added, removed []*entry) ([]*manifest, error) {
	bags := map[int32]*bag{}
	alone := map[*manifest]*bag{}
	bagOf := func(spec int32) *bag {
		if bags[spec] == nil {
			bags[spec] = &bag{spec: spec}
		}
		return bags[spec]
	}
	for _, e := range added {
		b := bagOf(e.file.SpecID())
		b.added = append(b.added, e)
	}
	touched := map[*manifest]bool{}
	gone := make(map[*entry]bool, len(removed))
	for _, e := range removed {
		b := bagOf(e.file.SpecID())
		if len(e.home.entries) >= manifestAlone {
			if b = alone[e.home]; b == nil {
				b = &bag{spec: e.file.SpecID()}
				alone[e.home] = b
			}
		}
		b.removed = append(b.removed, e)
		touched[e.home] = true
		gone[e] = true
	}
	var kept []*manifest
	for _, m := range base {
		switch {
		case touched[m] || m.unassigned:
			b := alone[m]
			if b == nil {
				b = bagOf(m.file.PartitionSpecID())
			}
			for _, e := range m.entries {
				if !gone[e] {
					b.existing = append(b.existing, e)
				}
			}
		case len(m.entries) > 0:
			kept = append(kept, m)
		default:
			// It held only what an earlier snapshot removed.
		}
	}
	for _, b := range bags {
		kept = b.absorb(kept)
		if err := p.write(b); err != nil {
			return nil, err
		}
	}
	for _, b := range alone {
		if err := p.write(b); err != nil {
			return nil, err
		}
	}
	return append(slices.Clone(p.written), kept...), nil
}

// bag collects the entries of one spec that are written anew.
type bag struct {
	spec                     int32
	added, existing, removed []*entry
}

func tier(n int) int {
	t := 0
	for n >= manifestFanout {
		n /= manifestFanout
		t++
	}
	return t
}

// absorb moves the entries of small manifests into the bag as long as there are
// enough of the bag's own tier or below, all of them where there are too many,
// and returns the rest.
func (b *bag) absorb(kept []*manifest) []*manifest {
	count, entries := 0, 0
	for _, m := range kept {
		if m.file.PartitionSpecID() == b.spec {
			count, entries = count+1, entries+len(m.entries)
		}
	}
	crowded := count > manifestsSpare+2*entries/manifestEntries
	for {
		live := len(b.added) + len(b.existing)
		var of []*manifest
		for _, m := range kept {
			if m.file.PartitionSpecID() == b.spec && len(m.entries) < manifestEntries/2 && (crowded || tier(len(m.entries)) <= tier(live)) {
				of = append(of, m)
			}
		}
		if live == 0 || len(of) < manifestFanout-1 {
			return kept
		}
		for _, m := range of {
			b.existing = append(b.existing, m.entries...)
		}
		kept = slices.DeleteFunc(slices.Clone(kept), func(m *manifest) bool { return slices.Contains(of, m) })
	}
}

// write encodes a bag as one manifest, or several if it is large. Entries
// without a first row id come first, so that they can be read back alone.
func (p *manifestPlan) write(b *bag) error {
	spec, err := p.meta.spec(b.spec)
	if err != nil {
		return err
	}
	type item struct {
		e      *entry
		status iceberg.ManifestEntryStatus
	}
	items := make([]item, 0, len(b.added)+len(b.existing)+len(b.removed))
	for _, e := range b.added {
		items = append(items, item{e, iceberg.EntryStatusADDED})
	}
	for _, e := range b.existing {
		items = append(items, item{e, iceberg.EntryStatusEXISTING})
	}
	slices.SortStableFunc(items, func(x, y item) int { return cmp.Compare(rank(x.e), rank(y.e)) })
	for _, e := range b.removed {
		items = append(items, item{e, iceberg.EntryStatusDELETED})
	}
	for part := range slices.Chunk(items, manifestEntries) {
		var out bytes.Buffer
		w, err := iceberg.NewManifestWriter(p.meta.formatVersion, &out, spec, withSources(p.meta.schema(), p.meta, spec), p.snapshot, iceberg.WithManifestWriterContent(p.content))
		if err != nil {
			return fmt.Errorf("start manifest: %w", err)
		}
		m := &manifest{}
		for _, it := range part {
			e := it.e
			switch it.status {
			case iceberg.EntryStatusADDED:
				err = w.Add(iceberg.NewManifestEntry(it.status, &p.snapshot, nil, nil, e.file))
			case iceberg.EntryStatusEXISTING:
				err = w.Existing(iceberg.NewManifestEntry(it.status, &e.snapshot, &e.sequence, &e.fileSequence, e.file))
			default:
				err = w.Delete(iceberg.NewManifestEntry(it.status, &p.snapshot, &e.sequence, &e.fileSequence, e.file))
			}
			if err != nil {
				return fmt.Errorf("add %s to manifest: %w", e.file.FilePath(), err)
			}
			if it.status != iceberg.EntryStatusDELETED {
				m.entries = append(m.entries, e)
			}
		}
		if err := w.Close(); err != nil {
			return fmt.Errorf("close manifest: %w", err)
		}
		key, uri := p.name()
		if m.file, err = w.ToManifestFile(uri, int64(out.Len())); err != nil {
			return fmt.Errorf("close manifest: %w", err)
		}
		m.file = keepEmptyBounds(m.file)
		p.written = append(p.written, m)
		p.objects = append(p.objects, upload{key, out.Bytes()})
	}
	return nil
}

func rank(e *entry) int {
	if e.rowIDAssigned {
		return 1
	}
	return 0
}

// list encodes the manifest list and gives the manifests what it assigned to
// them, by reading it back: sequence numbers and, in v3, first row ids. It
// returns the next row id.
func (p *manifestPlan) list(manifests []*manifest, parent, sequence int64) ([]byte, int64, error) {
	var out bytes.Buffer
	var w *iceberg.ManifestListWriter
	var err error
	var parentID *int64
	if parent != 0 {
		parentID = &parent
	}
	if p.meta.formatVersion >= 3 {
		w, err = iceberg.NewManifestListWriterV3(&out, p.snapshot, sequence, p.meta.nextRowID, parentID)
	} else {
		w, err = iceberg.NewManifestListWriterV2(&out, p.snapshot, sequence, parentID)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("start manifest list: %w", err)
	}
	files := make([]iceberg.ManifestFile, len(manifests))
	for i, m := range manifests {
		files[i] = m.file
	}
	if err := w.AddManifests(files); err != nil {
		return nil, 0, fmt.Errorf("write manifest list: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, 0, fmt.Errorf("write manifest list: %w", err)
	}
	next := p.meta.nextRowID
	if id := w.NextRowID(); id != nil {
		next = *id
	}
	back, err := iceberg.ReadManifestList(bytes.NewReader(out.Bytes()))
	if err != nil {
		return nil, 0, fmt.Errorf("read manifest list back: %w", err)
	}
	if len(back) != len(manifests) {
		return nil, 0, fmt.Errorf("read manifest list back: %d manifests, wrote %d", len(back), len(manifests))
	}
	for i, f := range back {
		if f.SnapshotID() == p.snapshot {
			manifests[i].file = f
		}
	}
	return out.Bytes(), next, nil
}

// assignRowIDs gives the new entries of v3 data manifests the first row ids that
// a reader infers.
func (p *manifestPlan) assignRowIDs() error {
	for i, m := range p.written {
		n := 0
		for n < len(m.entries) && !m.entries[n].rowIDAssigned {
			n++
		}
		if n == 0 {
			continue
		}
		r, err := iceberg.NewManifestReader(m.file, bytes.NewReader(p.objects[i].body))
		if err != nil {
			return fmt.Errorf("read manifest back: %w", err)
		}
		for j := range n {
			read, err := r.ReadEntry()
			if err != nil {
				return fmt.Errorf("read manifest back: %w", err)
			}
			e := *m.entries[j]
			e.file, e.rowIDAssigned = read.DataFile(), true
			m.entries[j] = &e
		}
		if err := r.Close(); err != nil {
			return fmt.Errorf("read manifest back: %w", err)
		}
	}
	return nil
}

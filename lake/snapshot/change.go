package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/iceberg-go"
	"golang.org/x/sync/errgroup"

	"firn/lake"
	columns "firn/lake/column"
)

// prepared is a table's next state: what differs from the base, and the objects
// that say so.
type prepared struct {
	t    *Table
	base *metadata
	meta *metadata
	move lake.Move

	snapshotID, sequence int64 // 0: metadata only
	added                []*dataFile
	removed              map[*dataFile]bool
	dead                 map[*dataFile]*roaring.Bitmap // newly dead rows, ours
	rewrites             int
	carried              columns.Sum // of the rewrites' rows
	moves                bool        // the commit moves rows, and changes none
	addDeletes           []*deleteFile
	gone                 map[*deleteFile]bool
	lost                 map[*deleteFile]int // data files a live delete file loses
	data, deletes        []*manifest
	written              []*manifest // those of data and deletes that are new
	total                totals
	objects              []upload
	waits                []*lake.NewFile
}

// Move is what the catalog publishes.
func (p *prepared) Move() lake.Move { return p.move }

// Prepare encodes the next snapshot. It makes one if c changes the rows or the
// schema, or is of kind snapshot or schema; otherwise only the metadata
// changes. c's bitmaps are read, not kept.
func (t *Table) Prepare(ctx context.Context, c *lake.Change) (lake.Prepared, error) {
	p := &prepared{
		t: t, base: t.meta, meta: t.meta.clone(), total: t.total,
		removed: map[*dataFile]bool{}, dead: map[*dataFile]*roaring.Bitmap{},
		gone: map[*deleteFile]bool{}, lost: map[*deleteFile]int{},
	}
	if err := p.prepare(ctx, c); err != nil {
		return nil, fmt.Errorf("prepare snapshot of %s: %w", t.o.Ident, err)
	}
	return p, nil
}

func (p *prepared) prepare(ctx context.Context, c *lake.Change) error {
	t, m := p.t, p.meta
	m.follow(t.metaURI, t.meta)
	m.setProperties(c.Properties)
	if err := t.addSpecs(m); err != nil {
		return err
	}
	if c.Schema != nil {
		if err := m.setSchema(withSources(c.Schema, m, m.specs...)); err != nil {
			return err
		}
		if err := m.partitionBy(c.Partition); err != nil {
			return err
		}
		t.settle(m)
	}
	if err := m.nameFields(); err != nil {
		return err
	}
	when := t.timestamp(c.CommitTime)
	if c.Schema == nil && !c.Truncate && len(c.Rewrites) == 0 && len(c.Add) == 0 && len(c.Dead) == 0 && c.Kind != "snapshot" && c.Kind != "schema" {
		m.lastUpdatedMS = max(when, m.lastUpdatedMS)
	} else if err := p.snapshot(ctx, c, when); err != nil {
		return err
	}
	if err := p.remember(ctx); err != nil {
		return err
	}
	body, err := m.marshal()
	if err != nil {
		return err
	}
	version := metadataVersion(t.metaURI) + 1
	key := t.metadataKey(fmt.Sprintf("%05d-%s.metadata.json", version, newUUID()))
	p.objects = append(p.objects, upload{key, body})
	p.move = lake.Move{
		Table: t.o.Ident, UUID: m.uuid, Location: m.location,
		From: t.metaURI, To: t.o.Store.URI(key), SnapshotID: m.current, SequenceNum: m.lastSequence,
	}
	return nil
}

// timestamp is the table's time of a Postgres commit: never before, and never
// equal to, the last one, even where clocks ran back.
func (t *Table) timestamp(commit time.Time) int64 {
	m := t.meta
	if m.current == 0 {
		if commit.IsZero() {
			commit = time.Now()
		}
		return max(commit.UnixMilli(), 1)
	}
	last := m.lastUpdatedMS
	if n := len(m.log); n > 0 {
		last = m.log[n-1].TimestampMS
	}
	if commit.IsZero() {
		return last + 1
	}
	return max(commit.UnixMilli(), last+1)
}

func (p *prepared) snapshot(ctx context.Context, c *lake.Change, when int64) error {
	t, m := p.t, p.meta
	p.snapshotID = newSnapshotID(m)
	p.sequence = m.lastSequence + 1
	m.lastSequence = p.sequence
	if err := p.rows(c); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.deleteFiles(); err != nil {
		return err
	}
	added, removed := p.count()
	list, err := p.manifests()
	if err != nil {
		return err
	}
	doc := struct {
		ID           int64             `json:"snapshot-id"`
		Parent       *int64            `json:"parent-snapshot-id,omitempty"`
		Sequence     int64             `json:"sequence-number"`
		TimestampMS  int64             `json:"timestamp-ms"`
		Summary      map[string]string `json:"summary"`
		ManifestList string            `json:"manifest-list"`
		SchemaID     int               `json:"schema-id"`
		FirstRowID   *int64            `json:"first-row-id,omitempty"`
		AddedRows    *int64            `json:"added-rows,omitempty"`
	}{
		ID: p.snapshotID, Sequence: p.sequence, TimestampMS: when,
		Summary: p.summary(c.Stamp, added, removed, p.total), ManifestList: list, SchemaID: m.currentSchemaID,
	}
	if t.meta.current != 0 {
		doc.Parent = &t.meta.current
	}
	if m.formatVersion >= 3 {
		first, rows := t.meta.nextRowID, m.nextRowID-t.meta.nextRowID
		doc.FirstRowID, doc.AddedRows = &first, &rows
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("marshal snapshot: %w", err)
	}
	m.addSnapshot(snapshotDoc{id: p.snapshotID, timestampMS: when, epoch: c.Epoch, doc: raw})
	return nil
}

// remember brings refs and history to what the lake keeps.
func (p *prepared) remember(ctx context.Context) error {
	var h *History
	if p.t.o.History != nil {
		h = p.t.o.History()
		if err := p.meta.tag(ctx, h); err != nil {
			return err
		}
	}
	return p.meta.thin(h)
}

func newSnapshotID(m *metadata) int64 {
	for {
		id := rand.Int64()
		if id > 0 && !slices.ContainsFunc(m.snapshots, func(s snapshotDoc) bool { return s.id == id }) {
			return id
		}
	}
}

// rows works out which data files come and go, and what dies in those that
// stay.
func (p *prepared) rows(c *lake.Change) error {
	t := p.t
	for _, d := range t.dangling {
		p.removeDelete(d)
	}
	if c.Truncate {
		for _, f := range t.files {
			p.remove(f)
		}
		for d := range t.deleteSet {
			p.removeDelete(d)
		}
	}
	outputs, err := p.replaceInputs(c)
	if err != nil {
		return err
	}
	fresh := make(map[string]*dataFile, len(outputs)+len(c.Add))
	for _, n := range slices.Concat(outputs, c.Add) {
		if n.Rows == 0 {
			continue
		}
		if t.byPath[n.Path] != nil || fresh[n.Path] != nil {
			return fmt.Errorf("data file %s is already in the table", n.Path)
		}
		e := newEntry(n.Entry, p.snapshotID, p.sequence)
		f := &dataFile{entry: e, path: n.Path, rows: n.Rows, bytes: n.Bytes, partition: partitionKey(n.Entry)}
		fresh[n.Path] = f
		dead := c.Dead[n.Path]
		if dead != nil && dead.GetCardinality() >= uint64(n.Rows) {
			continue // born and dead in one epoch: the table never sees it
		}
		p.waits = append(p.waits, n)
		p.added = append(p.added, f)
		if dead != nil && !dead.IsEmpty() {
			if err := checkPositions(f, dead); err != nil {
				return err
			}
			p.dead[f] = dead.Clone()
		}
	}
	for path, dead := range c.Dead {
		if fresh[path] != nil {
			continue
		}
		f := t.byPath[path]
		if f == nil {
			return fmt.Errorf("dead rows of %s, which is not a live data file", path)
		}
		if p.removed[f] {
			continue // replaceInputs has seen to a rewrite's inputs
		}
		if err := checkPositions(f, dead); err != nil {
			return err
		}
		rows := dead.Clone()
		if f.dead != nil {
			rows.AndNot(f.dead)
		}
		switch n := rows.GetCardinality(); {
		case n == 0:
		case f.deadRows()+n == uint64(f.rows):
			p.remove(f)
		default:
			p.dead[f] = rows
		}
	}
	return nil
}

// remove takes out a data file as a whole, and the delete files that name
// nothing else.
func (p *prepared) remove(f *dataFile) {
	p.removed[f] = true
	for _, d := range f.deletes {
		p.loseTarget(d)
	}
}

// loseTarget notes that a delete file stands for one data file less.
func (p *prepared) loseTarget(d *deleteFile) {
	p.lost[d]++
	if p.lost[d] >= len(d.rows) {
		p.removeDelete(d)
	}
}

func (p *prepared) removeDelete(d *deleteFile) { p.gone[d] = true }

// deleteFiles encodes the dead rows of this commit.
func (p *prepared) deleteFiles() error {
	files := make([]*dataFile, 0, len(p.dead))
	for f := range p.dead {
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b *dataFile) int { return bytes.Compare([]byte(a.path), []byte(b.path)) })
	if p.meta.formatVersion < 3 {
		return p.positionDeletes(files)
	}
	rows := make([]*roaring.Bitmap, len(files))
	for i, f := range files {
		rows[i] = p.dead[f]
		if f.dead != nil {
			rows[i] = roaring.Or(f.dead, rows[i])
		}
		for _, d := range f.deletes {
			p.loseTarget(d) // the vector stands for all of the file's dead rows
		}
	}
	return p.vectors(files, rows)
}

// count works out what the commit adds and removes, and the new totals.
func (p *prepared) count() (added, removed totals) {
	for _, f := range p.added {
		added.add(f.entry, nil, 1)
		p.total.add(f.entry, nil, 1)
	}
	for f := range p.removed {
		removed.add(f.entry, nil, 1)
		p.total.add(f.entry, nil, -1)
	}
	for _, d := range p.addDeletes {
		added.add(d.entry, d, 1)
		p.total.add(d.entry, d, 1)
	}
	for d := range p.gone {
		removed.add(d.entry, d, 1)
		p.total.add(d.entry, d, -1)
	}
	return added, removed
}

// manifests encodes the manifests and their list, and returns its URI.
func (p *prepared) manifests() (string, error) {
	t, m := p.t, p.meta
	commit, n := newUUID(), 0
	name := func() (string, string) {
		key := t.metadataKey(fmt.Sprintf("%s-m%d.avro", commit, n))
		n++
		return key, t.o.Store.URI(key)
	}
	entriesOf := func(k int, yield func(i int) *entry) []*entry {
		out := make([]*entry, k)
		for i := range k {
			out[i] = yield(i)
		}
		return out
	}
	data := &manifestPlan{meta: m, content: iceberg.ManifestContentData, snapshot: p.snapshotID, name: name}
	deletes := &manifestPlan{meta: m, content: iceberg.ManifestContentDeletes, snapshot: p.snapshotID, name: name}
	var goneData, goneDeletes []*entry
	for f := range p.removed {
		goneData = append(goneData, f.entry)
	}
	for d := range p.gone {
		goneDeletes = append(goneDeletes, d.entry)
	}
	var err error
	if p.data, err = data.plan(t.data, entriesOf(len(p.added), func(i int) *entry { return p.added[i].entry }), goneData); err != nil {
		return "", err
	}
	if p.deletes, err = deletes.plan(t.deletes, entriesOf(len(p.addDeletes), func(i int) *entry { return p.addDeletes[i].entry }), goneDeletes); err != nil {
		return "", err
	}
	all := slices.Concat(p.data, p.deletes)
	list, next, err := data.list(all, t.meta.current, p.sequence)
	if err != nil {
		return "", err
	}
	if m.formatVersion >= 3 {
		m.nextRowID = next
		if err := data.assignRowIDs(); err != nil {
			return "", err
		}
	}
	p.written = slices.Concat(data.written, deletes.written)
	key := t.metadataKey(fmt.Sprintf("snap-%d-1-%s.avro", p.snapshotID, commit))
	p.objects = append(slices.Concat(p.objects, data.objects, deletes.objects), upload{key, list})
	return t.o.Store.URI(key), nil
}

const uploadsAtOnce = 16

// Upload puts all objects in parallel and waits for the data files.
func (p *prepared) Upload(ctx context.Context) error {
	var keys []string
	for _, o := range p.objects {
		keys = append(keys, o.key)
	}
	hold(p.t.o.Pending, p, keys...)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(uploadsAtOnce)
	for _, o := range p.objects {
		g.Go(func() error {
			if err := p.t.o.Store.Put(ctx, o.key, bytes.NewReader(o.body), int64(len(o.body))); err != nil {
				return fmt.Errorf("upload %s: %w", o.key, err)
			}
			return nil
		})
	}
	g.Go(func() error {
		looks, lctx := errgroup.WithContext(ctx)
		looks.SetLimit(uploadsAtOnce)
		defer func() { _ = looks.Wait() }() // where it matters it has been waited for
		for _, n := range p.waits {
			select {
			case <-n.Uploaded:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := n.UploadErr(); err != nil {
				return err
			}
			looks.Go(func() error { return p.t.stillThere(lctx, n) })
		}
		return looks.Wait()
	})
	return g.Wait()
}

// lookAgainAfter is half of the grace time that whoever cleans up leaves to
// files that no snapshot names.
const lookAgainAfter = 30 * time.Minute

// stillThere looks at a data file that was uploaded long before its
// publication, in a long transaction or a load: at its last bytes, which
// Parquet fixes.
func (t *Table) stillThere(ctx context.Context, n *lake.NewFile) error {
	// By the wall clock: the other one stands while the machine sleeps.
	if t.o.Now().Round(0).Sub(n.UploadedAt().Round(0)) <= lookAgainAfter {
		return nil
	}
	key, ok := t.o.Store.Key(n.Path)
	if !ok {
		return fmt.Errorf("look at %s: it lies outside the warehouse", n.Path)
	}
	end, err := t.o.Store.GetRange(ctx, key, n.Bytes-4, 4)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && string(end) != "PAR1":
		return fmt.Errorf("look at %s, uploaded at %s: %w", n.Path, n.UploadedAt().Format(time.RFC3339), lake.ErrVanished)
	case err != nil:
		return fmt.Errorf("look at %s: %w", n.Path, err)
	}
	return nil
}

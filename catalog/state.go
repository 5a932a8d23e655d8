package catalog

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"firn/wal"
)

// State is the whole catalog as one entry of the log left it. One that Head,
// Entry or AsOf handed out is immutable and may be read from any goroutine;
// Commit's callback gets a private copy, which it changes through the setters
// and by assigning Epoch, LSN, CommitTime, XID, Source and Warehouse.
type State struct {
	Number   uint64 // of the entry; the callback of Commit sees its predecessor's
	CommitID string // "" only before the first entry
	Previous string // commit id of the entry before
	Writer   Writer // who wrote the entry

	Epoch      uint64    // of the newest epoch; entries that aren't one repeat it
	LSN        wal.LSN   // end of its last commit record; repeated likewise
	CommitTime time.Time // of the last Postgres commit in it
	XID        uint32    // of that commit

	// Trimmed is the number below which only those entries are sure to be there
	// that a kept epoch or a tag is read from; see Log.Expire.
	Trimmed uint64

	Source    *Source // nil: no Postgres has been connected yet
	Warehouse string  // name that clients know this warehouse by

	namespaces  layer[string, map[string]string]
	tables      layer[string, Table]
	views       layer[string, View]
	tags        layer[string, Tag]
	epochs      layer[uint64, Kept]
	idempotency layer[string, Outcome]

	base baseRef // the full entry that the layers' bases come from
}

// Writer names a process that writes entries. Incarnation is 0 for one that
// only serves the catalog, else the one it claimed.
type Writer struct {
	ID          string `json:"id"`
	Incarnation uint64 `json:"incarnation,omitempty"`
}

// Phases of a Source.
const (
	PhaseCreating = "creating" // the slot is about to be created: drop one that is there, create again
	PhaseReady    = "ready"    // the slot exists, from ConsistentPoint on
)

// Source identifies the Postgres database that this lake mirrors, and the run
// that does it.
type Source struct {
	SystemID        string  `json:"system_id"`
	Timeline        int32   `json:"timeline"`
	Database        string  `json:"database"`
	Slot            string  `json:"slot"`
	Publication     string  `json:"publication"`
	ConsistentPoint wal.LSN `json:"consistent_point"`
	Phase           string  `json:"phase"`
	// Incarnation counts the claims, Writer is the last claimer's id.
	Incarnation uint64 `json:"incarnation"`
	Writer      string `json:"writer,omitempty"`
}

// Table is where a table's pointer stands.
type Table struct {
	UUID           string  `json:"uuid"`
	Location       string  `json:"location"` // URI of its folder
	Metadata       string  `json:"metadata"` // URI of its current metadata file
	SnapshotID     int64   `json:"snapshot_id,omitempty"`
	SequenceNumber int64   `json:"sequence_number,omitempty"`
	Mirror         *Mirror `json:"mirror,omitempty"` // nil: somebody else's table
}

// Stale says that readers of the lake at this entry see less of the table than of
// the others: it mirrors Postgres, and the entry was made without it, as while its
// index follows another engine's commit. It shows Mirror.LSN.
func (t Table) Stale() bool {
	return t.Mirror != nil && t.Metadata != "" && t.Mirror.State != Streaming
}

// States of a mirrored table.
const (
	Loading     = "loading"
	Streaming   = "streaming"
	Behind      = "behind"
	Skipped     = "skipped"
	Quarantined = "quarantined"
)

// Mirror says which Postgres table a table shows, and how far.
type Mirror struct {
	OID    uint32  `json:"oid"`
	LSN    wal.LSN `json:"lsn"`             // position: it has every commit whose record starts before
	Floor  wal.LSN `json:"floor,omitempty"` // consistent point of the snapshot that its load read
	State  string  `json:"state"`           // one of the constants above
	Reason string  `json:"reason,omitempty"`
	// Notes are the owner's own durable facts about the table, such as its
	// file nodes.
	Notes map[string]string `json:"notes,omitempty"`
}

// View is where a view's pointer stands.
type View struct {
	UUID     string `json:"uuid"`
	Location string `json:"location"`
	Metadata string `json:"metadata"`
}

// Kept is an epoch that the lake can be asked for.
type Kept struct {
	Number   uint64    `json:"number"` // of its entry
	CommitID string    `json:"commit_id"`
	Epoch    uint64    `json:"epoch"`
	LSN      wal.LSN   `json:"lsn"`
	Time     time.Time `json:"time"` // of the last Postgres commit in it
}

// Tag keeps an epoch by name until the tag is dropped.
type Tag struct {
	Kept
	Created time.Time `json:"created"`
}

// Outcome is what a request with an idempotency key led to, so that the same
// request sent again gets the same answer. It is forgotten after an hour.
type Outcome struct {
	Time   time.Time `json:"time"`
	Result string    `json:"result"` // the server's own
}

// Table returns a table's pointer; the Table is the caller's own.
func (s *State) Table(id Ident) (Table, bool) {
	t, ok := s.tables.get(id.key())
	t.Mirror = t.Mirror.clone()
	return t, ok
}

// Tables yields all tables, ordered by namespace and name.
func (s *State) Tables() iter.Seq2[Ident, Table] {
	return func(yield func(Ident, Table) bool) {
		for _, k := range s.tables.keys() {
			t, _ := s.tables.get(k)
			t.Mirror = t.Mirror.clone()
			if !yield(splitIdent(k), t) {
				return
			}
		}
	}
}

// TableCount is the number of tables.
func (s *State) TableCount() int { return s.tables.len() }

// PutTable creates or moves a table; t is copied. Its namespace must be there
// when the commit ends.
func (s *State) PutTable(id Ident, t Table) {
	t.Mirror = t.Mirror.clone()
	s.tables.put(id.key(), t)
}

// DropTable reports whether the table was there.
func (s *State) DropTable(id Ident) bool { return s.tables.drop(id.key()) }

// Namespace returns a namespace's properties, which must not be changed.
func (s *State) Namespace(ns []string) (map[string]string, bool) {
	return s.namespaces.get(namespaceKey(ns))
}

// Namespaces yields all namespaces with their properties, in order.
func (s *State) Namespaces() iter.Seq2[[]string, map[string]string] {
	return func(yield func([]string, map[string]string) bool) {
		for _, k := range s.namespaces.keys() {
			p, _ := s.namespaces.get(k)
			if !yield(splitNamespace(k), p) {
				return
			}
		}
	}
}

// PutNamespace creates a namespace or replaces its properties, which are
// copied.
func (s *State) PutNamespace(ns []string, properties map[string]string) {
	p := maps.Clone(properties)
	if p == nil {
		p = map[string]string{}
	}
	s.namespaces.put(namespaceKey(ns), p)
}

// DropNamespace reports whether the namespace was there. Commit refuses to
// leave tables or views behind in it.
func (s *State) DropNamespace(ns []string) bool { return s.namespaces.drop(namespaceKey(ns)) }

// View returns a view's pointer.
func (s *State) View(id Ident) (View, bool) { return s.views.get(id.key()) }

// Views yields all views, ordered by namespace and name.
func (s *State) Views() iter.Seq2[Ident, View] {
	return func(yield func(Ident, View) bool) {
		for _, k := range s.views.keys() {
			v, _ := s.views.get(k)
			if !yield(splitIdent(k), v) {
				return
			}
		}
	}
}

// PutView creates or moves a view.
func (s *State) PutView(id Ident, v View) { s.views.put(id.key(), v) }

// DropView reports whether the view was there.
func (s *State) DropView(id Ident) bool { return s.views.drop(id.key()) }

// Tag returns a tag by name.
func (s *State) Tag(name string) (Tag, bool) { return s.tags.get(name) }

// Tags yields all tags by name.
func (s *State) Tags() iter.Seq2[string, Tag] {
	return func(yield func(string, Tag) bool) {
		for _, k := range s.tags.keys() {
			t, _ := s.tags.get(k)
			if !yield(k, t) {
				return
			}
		}
	}
}

// PutTag names a kept epoch, which then survives thinning.
func (s *State) PutTag(name string, t Tag) { s.tags.put(name, t) }

// DropTag reports whether the tag was there.
func (s *State) DropTag(name string) bool { return s.tags.drop(name) }

// Epochs returns the kept epochs, oldest first. A commit that raises Epoch
// adds itself and thins the others by the log's Retention.
func (s *State) Epochs() []Kept {
	keys := s.epochs.keys()
	out := make([]Kept, len(keys))
	for i, k := range keys {
		out[i], _ = s.epochs.get(k)
	}
	return out
}

// shows says whether clients see the same namespaces, tables and views in both.
func (s *State) shows(o *State) bool {
	same := func(a, b Table) bool { return a.UUID == b.UUID && a.Metadata == b.Metadata }
	return s.tables.equal(&o.tables, same) && s.views.equal(&o.views, func(a, b View) bool { return a == b }) &&
		s.namespaces.equal(&o.namespaces, maps.Equal[map[string]string])
}

// Outcome returns what an idempotency key of the last hour led to.
func (s *State) Outcome(key string) (Outcome, bool) { return s.idempotency.get(key) }

// PutOutcome remembers an idempotency key.
func (s *State) PutOutcome(key string, o Outcome) { s.idempotency.put(key, o) }

func (m *Mirror) clone() *Mirror {
	if m == nil {
		return nil
	}
	c := *m
	c.Notes = maps.Clone(m.Notes)
	return &c
}

// draft is a private copy to be changed.
func (s *State) draft() *State {
	c := *s
	if s.Source != nil {
		src := *s.Source
		c.Source = &src
	}
	c.namespaces = s.namespaces.clone()
	c.tables = s.tables.clone()
	c.views = s.views.clone()
	c.tags = s.tags.clone()
	c.epochs = s.epochs.clone()
	c.idempotency = s.idempotency.clone()
	return &c
}

// check refuses what no later entry could put right.
func (s *State) check(before *State) error {
	if s.LSN < before.LSN {
		return fmt.Errorf("commit entry: LSN %s is behind the head's %s", s.LSN, before.LSN)
	}
	if s.Trimmed < before.Trimmed {
		return fmt.Errorf("commit entry: the log is trimmed to %d, and %d is below that", before.Trimmed, s.Trimmed)
	}
	if s.Epoch < before.Epoch {
		return fmt.Errorf("commit entry: epoch %d is behind the head's %d", s.Epoch, before.Epoch)
	}
	tables, _ := s.tables.changed()
	views, _ := s.views.changed()
	for _, k := range slices.Concat(tables, views) {
		id := splitIdent(k)
		if _, ok := s.Namespace(id.Namespace); !ok {
			return fmt.Errorf("commit entry: %s is in namespace %s, which does not exist", id, strings.Join(id.Namespace, "."))
		}
	}
	if _, dropped := s.namespaces.changed(); len(dropped) > 0 {
		if err := s.checkEmpty(dropped); err != nil {
			return err
		}
	}
	tags, _ := s.tags.changed()
	for _, name := range tags {
		t, _ := s.tags.get(name)
		if k, ok := s.epochs.get(t.Number); !ok || k.CommitID != t.CommitID {
			return fmt.Errorf("commit entry: tag %q names entry %d, which is no kept epoch", name, t.Number)
		}
	}
	return nil
}

func (s *State) checkEmpty(dropped []string) error {
	for _, k := range slices.Concat(s.tables.keys(), s.views.keys()) {
		if id := splitIdent(k); slices.Contains(dropped, namespaceKey(id.Namespace)) {
			return fmt.Errorf("commit entry: namespace %s is dropped while %s is in it", strings.Join(id.Namespace, "."), id)
		}
	}
	return nil
}

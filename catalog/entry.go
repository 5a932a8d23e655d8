package catalog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
	"time"

	"firn/wal"
)

// LogPrefix is where a warehouse keeps its epoch log.
const LogPrefix = "_firn/log/"

// entryFormat is raised when an older firn could misread an entry.
const entryFormat = 1

const (
	kindFull  = "full"
	kindDelta = "delta"
)

// entryFolderDigits of a number name the folder it lies in: a thousand entries
// a folder, so that stores which read whole directories (a folder, MinIO) find
// the head as fast after a year as on the first day.
const entryFolderDigits = 17

// entryKey is the object of an entry. Numbers are inverted, so that the head
// is the first key of a listing.
func entryKey(number uint64) string {
	digits := fmt.Sprintf("%020d", math.MaxUint64-number)
	return LogPrefix + digits[:entryFolderDigits] + "/" + digits + ".json"
}

func entryNumber(key string) (uint64, error) {
	digits := strings.TrimSuffix(path.Base(key), ".json")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || entryKey(math.MaxUint64-n) != key {
		return 0, fmt.Errorf("read log: %q is no entry's name", key)
	}
	return math.MaxUint64 - n, nil
}

// baseRef names a full entry and its size in bytes.
type baseRef struct {
	Number   uint64 `json:"number"`
	CommitID string `json:"commit_id"`
	Bytes    int    `json:"bytes"`
}

// entry is an entry's JSON. A full one lists everything that there is; a delta
// what was put and dropped since the full entry it names.
type entry struct {
	Format     int       `json:"firn"`
	Kind       string    `json:"kind"`
	Number     uint64    `json:"number"`
	CommitID   string    `json:"commit_id"`
	Previous   string    `json:"previous,omitempty"`
	Base       *baseRef  `json:"base,omitempty"`
	Writer     Writer    `json:"writer"`
	Epoch      uint64    `json:"epoch"`
	LSN        wal.LSN   `json:"lsn"`
	CommitTime time.Time `json:"commit_time,omitzero"`
	XID        uint32    `json:"xid,omitempty"`
	Trimmed    uint64    `json:"trimmed,omitempty"`
	Source     *Source   `json:"source,omitempty"`
	Warehouse  string    `json:"warehouse,omitempty"`

	Namespaces  []namedNamespace `json:"namespaces,omitempty"`
	Tables      []namedTable     `json:"tables,omitempty"`
	Views       []namedView      `json:"views,omitempty"`
	Tags        []namedTag       `json:"tags,omitempty"`
	Epochs      []Kept           `json:"epochs,omitempty"`
	Idempotency []namedOutcome   `json:"idempotency,omitempty"`
	Dropped     *tombstones      `json:"dropped,omitempty"`
}

type namedNamespace struct {
	Namespace  []string          `json:"namespace"`
	Properties map[string]string `json:"properties,omitempty"`
}

type namedTable struct {
	Ident
	Table
}

type namedView struct {
	Ident
	View
}

type namedTag struct {
	Name string `json:"name"`
	Tag
}

type namedOutcome struct {
	Key string `json:"key"`
	Outcome
}

type tombstones struct {
	Namespaces  [][]string `json:"namespaces,omitempty"`
	Tables      []Ident    `json:"tables,omitempty"`
	Views       []Ident    `json:"views,omitempty"`
	Tags        []string   `json:"tags,omitempty"`
	Epochs      []uint64   `json:"epochs,omitempty"`
	Idempotency []string   `json:"idempotency,omitempty"`
}

// encode returns the entry of s: a delta while that is less than half as large
// as the full entry it builds on. A full one changes s to be its own base.
func (s *State) encode() ([]byte, error) {
	if s.base.CommitID != "" {
		delta, err := json.Marshal(s.entry(kindDelta))
		if err != nil {
			return nil, fmt.Errorf("encode entry %d: %w", s.Number, err)
		}
		if 2*len(delta) < s.base.Bytes {
			return delta, nil
		}
	}
	s.rebase()
	full, err := json.Marshal(s.entry(kindFull))
	if err != nil {
		return nil, fmt.Errorf("encode entry %d: %w", s.Number, err)
	}
	s.base = baseRef{Number: s.Number, CommitID: s.CommitID, Bytes: len(full)}
	return full, nil
}

// rebase folds the changes into new bases.
func (s *State) rebase() {
	s.namespaces = s.namespaces.merged()
	s.tables = s.tables.merged()
	s.views = s.views.merged()
	s.tags = s.tags.merged()
	s.epochs = s.epochs.merged()
	s.idempotency = s.idempotency.merged()
}

func (s *State) entry(kind string) *entry {
	e := &entry{
		Format: entryFormat, Kind: kind, Number: s.Number, CommitID: s.CommitID, Previous: s.Previous,
		Writer: s.Writer, Epoch: s.Epoch, LSN: s.LSN, CommitTime: s.CommitTime, XID: s.XID,
		Trimmed: s.Trimmed, Source: s.Source, Warehouse: s.Warehouse,
	}
	var d tombstones
	dropped := 0
	collect(&s.namespaces, kind, &dropped, func(k string, p map[string]string) {
		e.Namespaces = append(e.Namespaces, namedNamespace{splitNamespace(k), p})
	}, func(k string) { d.Namespaces = append(d.Namespaces, splitNamespace(k)) })
	collect(&s.tables, kind, &dropped, func(k string, t Table) {
		e.Tables = append(e.Tables, namedTable{splitIdent(k), t})
	}, func(k string) { d.Tables = append(d.Tables, splitIdent(k)) })
	collect(&s.views, kind, &dropped, func(k string, v View) {
		e.Views = append(e.Views, namedView{splitIdent(k), v})
	}, func(k string) { d.Views = append(d.Views, splitIdent(k)) })
	collect(&s.tags, kind, &dropped, func(k string, t Tag) {
		e.Tags = append(e.Tags, namedTag{k, t})
	}, func(k string) { d.Tags = append(d.Tags, k) })
	collect(&s.epochs, kind, &dropped, func(_ uint64, t Kept) {
		e.Epochs = append(e.Epochs, t)
	}, func(k uint64) { d.Epochs = append(d.Epochs, k) })
	collect(&s.idempotency, kind, &dropped, func(k string, o Outcome) {
		e.Idempotency = append(e.Idempotency, namedOutcome{k, o})
	}, func(k string) { d.Idempotency = append(d.Idempotency, k) })
	if kind == kindDelta {
		base := s.base
		e.Base = &base
		if dropped > 0 {
			e.Dropped = &d
		}
	}
	return e
}

func collect[K interface{ string | uint64 }, V any](l *layer[K, V], kind string, dropped *int, put func(K, V), drop func(K)) {
	if kind == kindFull {
		for _, k := range l.keys() {
			v, _ := l.get(k)
			put(k, v)
		}
		return
	}
	changed, gone := l.changed()
	for _, k := range changed {
		v, _ := l.get(k)
		put(k, v)
	}
	for _, k := range gone {
		drop(k)
	}
	*dropped += len(gone)
}

// decodeEntry reads an entry's JSON and checks that it is the one it is named.
func decodeEntry(number uint64, data []byte) (*entry, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("read log entry %d: the object is empty, so something that is not firn made it: %w", number, ErrCorrupt)
	}
	var e entry
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&e); err != nil {
		return nil, fmt.Errorf("read log entry %d: %w: %w", number, ErrCorrupt, err)
	}
	switch {
	case e.Format > entryFormat:
		return nil, fmt.Errorf("read log entry %d: its format is %d and this firn knows %d: use a newer firn", number, e.Format, entryFormat)
	case e.Format != entryFormat || e.CommitID == "" || e.Number != number:
		return nil, fmt.Errorf("read log entry %d: it says format %d, number %d, commit id %q: %w", number, e.Format, e.Number, e.CommitID, ErrCorrupt)
	case e.Kind == kindDelta && e.Base != nil, e.Kind == kindFull && e.Base == nil && e.Dropped == nil:
		return &e, nil
	}
	return nil, fmt.Errorf("read log entry %d: kind %q does not fit its fields: %w", number, e.Kind, ErrCorrupt)
}

// state is the catalog as e left it. base is the state of the full entry that
// a delta names, and shared with the result; bytes is e's size.
func (e *entry) state(base *State, bytes int) *State {
	s := &State{
		Number: e.Number, CommitID: e.CommitID, Previous: e.Previous, Writer: e.Writer,
		Epoch: e.Epoch, LSN: e.LSN, CommitTime: e.CommitTime, XID: e.XID,
		Trimmed: e.Trimmed, Source: e.Source, Warehouse: e.Warehouse,
	}
	if base != nil {
		s.namespaces.base, s.tables.base, s.views.base = base.namespaces.base, base.tables.base, base.views.base
		s.tags.base, s.epochs.base, s.idempotency.base = base.tags.base, base.epochs.base, base.idempotency.base
		s.base = base.base
	}
	for _, n := range e.Namespaces {
		p := n.Properties
		if p == nil {
			p = map[string]string{}
		}
		s.namespaces.put(namespaceKey(n.Namespace), p)
	}
	for _, t := range e.Tables {
		s.tables.put(t.key(), t.Table)
	}
	for _, v := range e.Views {
		s.views.put(v.key(), v.View)
	}
	for _, t := range e.Tags {
		s.tags.put(t.Name, t.Tag)
	}
	for _, k := range e.Epochs {
		s.epochs.put(k.Number, k)
	}
	for _, o := range e.Idempotency {
		s.idempotency.put(o.Key, o.Outcome)
	}
	if d := e.Dropped; d != nil {
		d.apply(s)
	}
	if base == nil {
		s.rebase()
		s.base = baseRef{Number: e.Number, CommitID: e.CommitID, Bytes: bytes}
	}
	return s
}

func (d *tombstones) apply(s *State) {
	for _, n := range d.Namespaces {
		s.namespaces.drop(namespaceKey(n))
	}
	for _, t := range d.Tables {
		s.tables.drop(t.key())
	}
	for _, v := range d.Views {
		s.views.drop(v.key())
	}
	for _, k := range d.Tags {
		s.tags.drop(k)
	}
	for _, k := range d.Epochs {
		s.epochs.drop(k)
	}
	for _, k := range d.Idempotency {
		s.idempotency.drop(k)
	}
}

// onBase is s as its full entry left the layers: what deltas of the same base
// are applied to.
func (s *State) onBase() *State {
	return &State{
		base:        s.base,
		namespaces:  layer[string, map[string]string]{base: s.namespaces.base},
		tables:      layer[string, Table]{base: s.tables.base},
		views:       layer[string, View]{base: s.views.base},
		tags:        layer[string, Tag]{base: s.tags.base},
		epochs:      layer[uint64, Kept]{base: s.epochs.base},
		idempotency: layer[string, Outcome]{base: s.idempotency.base},
	}
}

// sameBase reports whether both build on the same full entry.
func (b baseRef) same(o baseRef) bool {
	return b.CommitID != "" && b.Number == o.Number && b.CommitID == o.CommitID
}

func (s *State) purgeOutcomes(before time.Time) {
	for _, k := range s.idempotency.keys() {
		if o, _ := s.idempotency.get(k); o.Time.Before(before) {
			s.idempotency.drop(k)
		}
	}
}

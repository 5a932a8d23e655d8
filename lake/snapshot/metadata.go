package snapshot

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// metadata is a table metadata document, of which we understand what we change
// and carry the rest as it came. A *metadata is never altered once published:
// the next one is made with clone.
type metadata struct {
	formatVersion   int
	uuid, location  string
	lastSequence    int64
	lastUpdatedMS   int64
	lastColumnID    int
	nextRowID       int64 // v3
	schemas         []schemaDoc
	currentSchemaID int
	specs           []iceberg.PartitionSpec
	specDocs        []json.RawMessage // of specs
	defaultSpecID   int
	sortOrders      []table.SortOrder
	sortOrderID     int // the default's; 0: unsorted
	lastPartition   int // highest id of a partition field
	properties      map[string]string
	current         int64 // snapshot id; 0: none
	snapshots       []snapshotDoc
	log             []logEntry
	previous        []previousFile
	refs            map[string]ref
	rest            map[string]json.RawMessage // keys as they came
}

type schemaDoc struct {
	schema *iceberg.Schema
	doc    json.RawMessage
}

// snapshotDoc is a kept snapshot: what thinning needs, and its JSON.
type snapshotDoc struct {
	id, timestampMS int64
	epoch           uint64 // that made it; 0: somebody else did
	doc             json.RawMessage
}

type logEntry struct {
	TimestampMS int64 `json:"timestamp-ms"`
	SnapshotID  int64 `json:"snapshot-id"`
}

type previousFile struct {
	TimestampMS int64  `json:"timestamp-ms"`
	File        string `json:"metadata-file"`
}

type ref struct {
	snapshot int64
	fields   map[string]json.RawMessage // all but snapshot-id
}

const (
	mainBranch             = "main"
	previousVersionsMaxKey = "write.metadata.previous-versions-max"
	previousVersionsMax    = 20
)

// newMetadata is the document of a table without snapshots and specs.
func newMetadata(formatVersion int, uuid, location string, schema *iceberg.Schema, properties map[string]string) (*metadata, error) {
	m := &metadata{
		formatVersion: formatVersion,
		uuid:          uuid,
		location:      location,
		properties:    maps.Clone(properties),
		lastPartition: 999,
		sortOrders:    []table.SortOrder{table.UnsortedSortOrder},
		refs:          map[string]ref{},
		rest:          map[string]json.RawMessage{},
	}
	if m.properties == nil {
		m.properties = map[string]string{}
	}
	return m, m.setSchema(schema)
}

// parseMetadata reads a metadata document, which may be compressed.
func parseMetadata(b []byte) (*metadata, error) {
	if len(b) > 2 && b[0] == 0x1f && b[1] == 0x8b {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("decompress metadata: %w", err)
		}
		if b, err = io.ReadAll(z); err != nil {
			return nil, fmt.Errorf("decompress metadata: %w", err)
		}
	}
	checked, err := table.ParseMetadataBytes(b)
	if err != nil {
		return nil, err
	}
	if v := checked.Version(); v != 2 && v != 3 {
		return nil, fmt.Errorf("format version %d is not supported, only 2 and 3", v)
	}
	m := &metadata{specs: checked.PartitionSpecs(), refs: map[string]ref{}}
	if err := json.Unmarshal(b, &m.rest); err != nil {
		return nil, err
	}
	var schemas, snapshots, specs []json.RawMessage
	var refs map[string]map[string]json.RawMessage
	var current *int64
	for key, to := range map[string]any{
		"format-version": &m.formatVersion, "table-uuid": &m.uuid, "location": &m.location,
		"last-sequence-number": &m.lastSequence, "last-updated-ms": &m.lastUpdatedMS,
		"last-column-id": &m.lastColumnID, "next-row-id": &m.nextRowID,
		"schemas": &schemas, "current-schema-id": &m.currentSchemaID,
		"sort-orders": &m.sortOrders, "default-sort-order-id": &m.sortOrderID,
		"partition-specs": &specs, "default-spec-id": &m.defaultSpecID, "last-partition-id": &m.lastPartition,
		"properties": &m.properties, "current-snapshot-id": &current, "snapshots": &snapshots,
		"snapshot-log": &m.log, "metadata-log": &m.previous, "refs": &refs,
	} {
		raw, ok := m.rest[key]
		delete(m.rest, key)
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, to); err != nil {
			return nil, fmt.Errorf("metadata key %s: %w", key, err)
		}
	}
	if m.properties == nil {
		m.properties = map[string]string{}
	}
	if current != nil && *current != -1 {
		m.current = *current
	}
	for _, doc := range schemas {
		s := &iceberg.Schema{}
		if err := json.Unmarshal(doc, s); err != nil {
			return nil, fmt.Errorf("schema of metadata: %w", err)
		}
		m.schemas = append(m.schemas, schemaDoc{schema: s, doc: doc})
	}
	m.specDocs = specs
	for _, doc := range snapshots {
		var s struct {
			ID          int64 `json:"snapshot-id"`
			TimestampMS int64 `json:"timestamp-ms"`
			Summary     struct {
				Epoch string `json:"firn.epoch"`
			} `json:"summary"`
		}
		if err := json.Unmarshal(doc, &s); err != nil {
			return nil, fmt.Errorf("snapshot of metadata: %w", err)
		}
		epoch, err := strconv.ParseUint(s.Summary.Epoch, 10, 64)
		if err != nil {
			epoch = 0 // somebody else's, who may write there what they like
		}
		m.snapshots = append(m.snapshots, snapshotDoc{id: s.ID, timestampMS: s.TimestampMS, epoch: epoch, doc: doc})
	}
	for name, fields := range refs {
		var r ref
		if err := json.Unmarshal(fields["snapshot-id"], &r.snapshot); err != nil {
			return nil, fmt.Errorf("ref %s: %w", name, err)
		}
		delete(fields, "snapshot-id")
		r.fields = fields
		m.refs[name] = r
	}
	return m, nil
}

// clone is a copy whose fields may be altered; documents are shared.
func (m *metadata) clone() *metadata {
	c := *m
	c.schemas = slices.Clone(m.schemas)
	c.specs = slices.Clone(m.specs)
	c.specDocs = slices.Clone(m.specDocs)
	c.properties = maps.Clone(m.properties)
	c.snapshots = slices.Clone(m.snapshots)
	c.log = slices.Clone(m.log)
	c.previous = slices.Clone(m.previous)
	c.refs = maps.Clone(m.refs)
	c.rest = maps.Clone(m.rest)
	return &c
}

func (m *metadata) schema() *iceberg.Schema {
	for _, s := range m.schemas {
		if s.schema.ID == m.currentSchemaID {
			return s.schema
		}
	}
	return nil // parseMetadata refuses such a document
}

// field finds a field by id in the current schema, then in older ones.
func (m *metadata) field(id int) (iceberg.NestedField, bool) {
	if f, ok := m.schema().FindFieldByID(id); ok {
		return f, true
	}
	for _, s := range slices.Backward(m.schemas) {
		if f, ok := s.schema.FindFieldByID(id); ok {
			return f, true
		}
	}
	return iceberg.NestedField{}, false
}

// setSchema makes s current, under the id of an equal schema if there is one.
func (m *metadata) setSchema(s *iceberg.Schema) error {
	highest := -1
	for _, have := range m.schemas {
		if have.schema.Equals(s) {
			m.currentSchemaID = have.schema.ID
			return nil
		}
		highest = max(highest, have.schema.ID)
	}
	s = iceberg.NewSchemaWithIdentifiers(highest+1, s.IdentifierFieldIDs, s.Fields()...)
	doc, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("marshal schema: %w", err)
	}
	m.schemas = append(m.schemas, schemaDoc{schema: s, doc: doc})
	m.currentSchemaID = s.ID
	m.lastColumnID = max(m.lastColumnID, s.HighestFieldID())
	return nil
}

// setProperties sets keys, and removes those with an empty value.
func (m *metadata) setProperties(p map[string]string) {
	for k, v := range p {
		if v == "" {
			delete(m.properties, k)
		} else {
			m.properties[k] = v
		}
	}
}

// follow records that this document replaces the one at uri.
func (m *metadata) follow(uri string, was *metadata) {
	if uri == "" {
		return
	}
	m.previous = append(m.previous, previousFile{TimestampMS: was.lastUpdatedMS, File: uri})
	limit := previousVersionsMax
	if n, err := strconv.Atoi(m.properties[previousVersionsMaxKey]); err == nil && n > 0 {
		limit = n
	}
	if n := len(m.previous) - limit; n > 0 {
		m.previous = slices.Clone(m.previous[n:])
	}
}

// addSnapshot makes s the current snapshot.
func (m *metadata) addSnapshot(s snapshotDoc) {
	m.snapshots = append(m.snapshots, s)
	m.log = append(m.log, logEntry{TimestampMS: s.timestampMS, SnapshotID: s.id})
	m.current = s.id
	m.lastUpdatedMS = s.timestampMS
	main, ok := m.refs[mainBranch]
	if !ok {
		main.fields = map[string]json.RawMessage{"type": json.RawMessage(`"branch"`)}
	}
	main.snapshot = s.id
	m.refs[mainBranch] = main
}

// marshal is the document as it is stored. What it costs is a copy of the kept
// snapshots' JSON.
func (m *metadata) marshal() ([]byte, error) {
	b := make([]byte, 0, 4096+900*len(m.snapshots))
	var errs []error
	key := func(k string) {
		if len(b) == 0 {
			b = append(b, '{')
		} else {
			b = append(b, ",\n"...)
		}
		b = strconv.AppendQuote(b, k)
		b = append(b, ':')
	}
	value := func(k string, v any) {
		doc, err := json.Marshal(v)
		errs = append(errs, err)
		key(k)
		b = append(b, doc...)
	}
	list := func(k string, n int, doc func(i int) json.RawMessage) {
		key(k)
		b = append(b, '[')
		for i := range n {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(append(b, '\n'), doc(i)...)
		}
		b = append(b, ']')
	}
	value("format-version", m.formatVersion)
	value("table-uuid", m.uuid)
	value("location", m.location)
	value("last-sequence-number", m.lastSequence)
	value("last-updated-ms", m.lastUpdatedMS)
	value("last-column-id", m.lastColumnID)
	list("schemas", len(m.schemas), func(i int) json.RawMessage { return m.schemas[i].doc })
	value("current-schema-id", m.currentSchemaID)
	value("sort-orders", nonNil(m.sortOrders))
	value("default-sort-order-id", m.sortOrderID)
	list("partition-specs", len(m.specDocs), func(i int) json.RawMessage { return m.specDocs[i] })
	value("default-spec-id", m.defaultSpecID)
	value("last-partition-id", m.lastPartition)
	for _, k := range slices.Sorted(maps.Keys(m.rest)) {
		key(k)
		b = append(b, m.rest[k]...)
	}
	value("properties", m.properties)
	switch {
	case m.current != 0:
		value("current-snapshot-id", m.current)
	case m.formatVersion >= 3:
		value("current-snapshot-id", nil)
	default:
		value("current-snapshot-id", -1)
	}
	if m.formatVersion >= 3 {
		value("next-row-id", m.nextRowID)
	}
	refs := map[string]map[string]json.RawMessage{}
	for name, r := range m.refs {
		fields := maps.Clone(r.fields)
		fields["snapshot-id"] = strconv.AppendInt(nil, r.snapshot, 10)
		refs[name] = fields
	}
	value("refs", refs)
	list("snapshots", len(m.snapshots), func(i int) json.RawMessage { return m.snapshots[i].doc })
	value("snapshot-log", nonNil(m.log))
	// Validators want the log not to run ahead of the document, whose time is
	// that of the last Postgres commit, and so may be earlier.
	previous := slices.Clone(m.previous)
	for i := range previous {
		previous[i].TimestampMS = min(previous[i].TimestampMS, m.lastUpdatedMS)
	}
	value("metadata-log", nonNil(previous))
	b = append(b, "}\n"...)
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("marshal metadata: %w", err)
	}
	return b, nil
}

// nonNil keeps an empty list from becoming null.
func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

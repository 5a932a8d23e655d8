package snapshot

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"

	"firn/lake/partition"
)

// spec is that of an id.
func (m *metadata) spec(id int32) (iceberg.PartitionSpec, error) {
	for _, s := range m.specs {
		if s.ID() == int(id) {
			return s, nil
		}
	}
	return iceberg.PartitionSpec{}, fmt.Errorf("partition spec %d is not in the metadata", id)
}

// specOf is the spec of these fields: the one that has them, or what addSpec
// would add. A field keeps its id and its name from spec to spec.
func (m *metadata) specOf(fields []partition.Field) (iceberg.PartitionSpec, error) {
	id, last := 0, m.lastPartition
	for _, s := range m.specs {
		if sameSpec(s, fields) {
			return s, nil
		}
		id = max(id, s.ID()+1)
	}
	var of []iceberg.PartitionField
	for _, f := range fields {
		t, err := iceberg.ParseTransform(f.Transform)
		if err != nil {
			return iceberg.PartitionSpec{}, fmt.Errorf("partition field %s: %w", f.Name, err)
		}
		p := iceberg.PartitionField{SourceIDs: []int{f.Source}, Name: f.Name, Transform: t}
		for _, s := range m.specs {
			for _, was := range s.Fields() {
				if was.SourceID() == f.Source && was.Transform.Equals(t) {
					p.FieldID, p.Name = was.FieldID, was.Name
				}
			}
		}
		if p.FieldID == 0 {
			last++
			p.FieldID = last
		}
		of = append(of, p)
	}
	return iceberg.NewPartitionSpecID(id, of...), nil
}

// sameSpec goes by what partitions are made of: a field's name is nameFields'
// affair.
func sameSpec(s iceberg.PartitionSpec, fields []partition.Field) bool {
	if s.NumFields() != len(fields) {
		return false
	}
	for i, f := range s.Fields() {
		if w := fields[i]; f.SourceID() != w.Source || f.Transform.String() != w.Transform {
			return false
		}
	}
	return true
}

// addSpec enters a spec of specOf's, unless it is there.
func (m *metadata) addSpec(s iceberg.PartitionSpec) error {
	if slices.ContainsFunc(m.specs, func(have iceberg.PartitionSpec) bool { return have.ID() == s.ID() }) {
		return nil
	}
	doc, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("marshal partition spec: %w", err)
	}
	m.specs = append(m.specs, s)
	m.specDocs = append(m.specDocs, doc)
	for _, f := range s.Fields() {
		m.lastPartition = max(m.lastPartition, f.FieldID)
	}
	return nil
}

// nameFields gives partition fields of all specs names that readers take. They
// bind every spec, old ones too, to the current schema, or to that of the
// snapshot they read, and refuse the table if a column of it has a field's name,
// unless the field holds that column's values. A name that another field has is
// refused as well; the newest spec's keeps it. Files and manifests know fields by
// their ids.
func (m *metadata) nameFields() error {
	names, taken := map[int]string{}, map[string]bool{}
	for i, s := range slices.Backward(m.specs) {
		var fields []iceberg.PartitionField
		renamed := false
		for _, f := range s.Fields() {
			name, ok := names[f.FieldID]
			if !ok {
				for name = f.Name; taken[strings.ToLower(name)] || m.refuses(name, f); {
					name += "_part"
				}
				names[f.FieldID], taken[strings.ToLower(name)] = name, true
			}
			renamed = renamed || name != f.Name
			f.Name = name
			fields = append(fields, f)
		}
		if !renamed {
			continue
		}
		m.specs[i] = iceberg.NewPartitionSpecID(s.ID(), fields...)
		doc, err := json.Marshal(m.specs[i])
		if err != nil {
			return fmt.Errorf("marshal partition spec: %w", err)
		}
		m.specDocs[i] = doc
	}
	return nil
}

// refuses says whether a column makes a name impossible for a partition field.
func (m *metadata) refuses(name string, f iceberg.PartitionField) bool {
	_, identity := f.Transform.(iceberg.IdentityTransform)
	for _, s := range m.schemas {
		if _, ok := s.schema.FindFieldByID(f.SourceID()); !ok {
			continue
		}
		for _, c := range s.schema.Fields() {
			if strings.EqualFold(c.Name, name) && !(identity && c.ID == f.SourceID()) {
				return true
			}
		}
	}
	return false
}

// withSources is a schema with the columns that the fields of specs are made of,
// those included that have been dropped since. A column that files are
// partitioned by stays in the table, though no new row has it: of a table whose
// specs name one that is not in the schema, Trino reads nothing, and DuckDB not
// by a filter.
func withSources(sc *iceberg.Schema, m *metadata, specs ...iceberg.PartitionSpec) *iceberg.Schema {
	fields := slices.Clone(sc.Fields())
	for _, spec := range specs {
		for _, f := range spec.Fields() {
			if slices.ContainsFunc(fields, func(have iceberg.NestedField) bool { return have.ID == f.SourceID() }) {
				continue
			}
			field, ok := m.field(f.SourceID())
			if !ok {
				continue
			}
			field.Required = false
			for slices.ContainsFunc(fields, func(have iceberg.NestedField) bool { return have.Name == field.Name }) {
				field.Name += "_dropped" // its name has been given to another
			}
			fields = append(fields, field)
		}
	}
	if len(fields) == sc.NumFields() {
		return sc
	}
	return iceberg.NewSchemaWithIdentifiers(sc.ID, sc.IdentifierFieldIDs, fields...)
}

// keepEmptyBounds has a new manifest say that its least or greatest partition
// value is the empty text: iceberg-go's summary has none then, which readers take
// for a manifest that holds nothing but NULL, and skip.
func keepEmptyBounds(f iceberg.ManifestFile) iceberg.ManifestFile {
	fields := f.Partitions()
	lost := false
	for _, p := range fields {
		for _, b := range []*[]byte{p.LowerBound, p.UpperBound} {
			if b != nil && *b == nil {
				*b, lost = []byte{}, true
			}
		}
	}
	if !lost {
		return f
	}
	return iceberg.NewManifestFile(f.Version(), f.FilePath(), f.Length(), f.PartitionSpecID(), f.SnapshotID()).
		SequenceNum(f.SequenceNum(), f.MinSequenceNum()).Content(f.ManifestContent()).
		AddedFiles(f.AddedDataFiles()).ExistingFiles(f.ExistingDataFiles()).DeletedFiles(f.DeletedDataFiles()).
		AddedRows(f.AddedRows()).ExistingRows(f.ExistingRows()).DeletedRows(f.DeletedRows()).
		Partitions(fields).Build()
}

// Spec is the partition spec of these fields, which the next Prepare makes part
// of the table if it isn't; files of it may be begun before. It may be called
// from any goroutine.
func (t *Table) Spec(fields []partition.Field) (iceberg.PartitionSpec, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.meta.specs {
		if sameSpec(s, fields) {
			return s, nil
		}
	}
	m := t.meta.clone()
	for _, s := range t.begun {
		if err := m.addSpec(s); err != nil {
			return iceberg.PartitionSpec{}, err
		}
	}
	s, err := m.specOf(fields)
	if err != nil {
		return s, err
	}
	if !slices.ContainsFunc(m.specs, func(have iceberg.PartitionSpec) bool { return have.ID() == s.ID() }) {
		t.begun = append(t.begun, s)
	}
	return s, nil
}

// addSpecs enters what Spec has told of.
func (t *Table) addSpecs(m *metadata) error {
	t.mu.RLock()
	begun := slices.Clone(t.begun)
	t.mu.RUnlock()
	for _, s := range begun {
		if err := m.addSpec(s); err != nil {
			return err
		}
	}
	return nil
}

// partitionBy makes the spec of fields the default one.
func (m *metadata) partitionBy(fields []partition.Field) error {
	s, err := m.specOf(fields)
	if err != nil {
		return err
	}
	m.defaultSpecID = s.ID()
	return m.addSpec(s)
}

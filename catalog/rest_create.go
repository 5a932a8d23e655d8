package catalog

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

type createRequest struct {
	Name       string             `json:"name"`
	Location   string             `json:"location"`
	Schema     json.RawMessage    `json:"schema"`
	Spec       json.RawMessage    `json:"partition-spec"`
	Order      json.RawMessage    `json:"write-order"`
	Stage      bool               `json:"stage-create"`
	Properties iceberg.Properties `json:"properties"`
}

func (s *server) createTable(ctx context.Context, c *call) error {
	var in createRequest
	if err := c.body(&in); err != nil {
		return err
	}
	if err := checkName(in.Name); err != nil {
		return err
	}
	var made *metadataFile // by the first run of the plan that got so far
	prepare := func(st *State) (Ident, error) {
		ns, err := c.namespace(st)
		if err != nil {
			return Ident{}, err
		}
		id := Ident{Namespace: ns, Name: in.Name}
		if _, ok := st.Namespace(ns); !ok {
			return id, noSuchNamespace(ns)
		}
		if err := nameTaken(st, id); err != nil {
			return id, err
		}
		if made == nil {
			made, err = s.newTableMetadata(st, id, &in)
			if err != nil {
				return id, err
			}
		}
		return id, s.checkLocation(st, id, strings.TrimRight(made.Meta.Location(), "/"))
	}
	if in.Stage {
		// Nothing is kept of it: the client sends all of it again when it commits.
		st, err := s.refresh(ctx)
		if err != nil {
			return err
		}
		if _, err := prepare(st); err != nil {
			return err
		}
		return s.replyTable(c, "", made.JSON, s.o.Config)
	}
	_, err := s.change(ctx, c, func(ctx context.Context, st *State) (install, error) {
		id, err := prepare(st)
		if err != nil {
			return nil, err
		}
		if made.URI == "" {
			uri := nextMetadataURI(strings.TrimRight(made.Meta.Location(), "/"), "")
			if err := s.putObject(ctx, uri, made.JSON); err != nil {
				return nil, err
			}
			made.URI = uri
			s.cache.put(made)
		}
		c.outcome = made.URI
		return func(next *State) { next.PutTable(id, pointer(made)) }, nil
	})
	if err != nil {
		return err
	}
	return s.replyOutcome(ctx, c)
}

// newTableMetadata builds the first metadata of a table, with field ids of our
// own assigning.
func (s *server) newTableMetadata(st *State, id Ident, in *createRequest) (*metadataFile, error) {
	location := strings.TrimRight(in.Location, "/")
	if location == "" {
		var err error
		if location, err = s.newLocation(st, id); err != nil {
			return nil, err
		}
	} else if key, err := s.keyOf(location); err != nil {
		return nil, err
	} else if !strings.Contains(location, ":") {
		// Some readers refuse a bare path in metadata.
		location = s.store.URI(key)
	}
	if present(in.Schema) == nil {
		return nil, badRequest("schema is missing")
	}
	var meta table.Metadata
	err := guard(func() error {
		schema := &iceberg.Schema{}
		if err := json.Unmarshal(in.Schema, schema); err != nil {
			return badRequest("malformed schema: %v", err)
		}
		var spec *iceberg.PartitionSpec
		if raw := present(in.Spec); raw != nil {
			spec = &iceberg.PartitionSpec{}
			if err := json.Unmarshal(raw, spec); err != nil {
				return badRequest("malformed partition-spec: %v", err)
			}
		}
		order := table.UnsortedSortOrder
		if raw := present(in.Order); raw != nil {
			if err := json.Unmarshal(raw, &order); err != nil {
				return badRequest("malformed write-order: %v", err)
			}
		}
		// A schema's id counts within the table: the first is 0.
		schema = iceberg.NewSchemaWithIdentifiers(0, schema.IdentifierFieldIDs, schema.Fields()...)
		var err error
		if meta, err = table.NewMetadata(schema, spec, order, location, in.Properties); err != nil {
			return badRequest("create table %s: %v", id, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return encodeMetadata(meta, nil)
}

// planCreate builds a table from the updates of a staged create.
func (s *server) planCreate(st *State, id Ident, reqs table.Requirements, updates table.Updates) (*step, error) {
	if _, ok := st.Namespace(id.Namespace); !ok {
		return nil, noSuchNamespace(id.Namespace)
	}
	creates := slices.ContainsFunc(reqs, func(r table.Requirement) bool { return r.GetType() == table.AssertCreate().GetType() })
	if !creates {
		return nil, noSuchTable(id)
	}
	if err := nameTaken(st, id); err != nil {
		return nil, err
	}
	for _, r := range reqs {
		if err := r.Validate(nil); err != nil {
			return nil, commitFailed("%v", err)
		}
	}
	location, err := s.newLocation(st, id)
	if err != nil {
		return nil, err
	}
	var meta table.Metadata
	err = guard(func() error {
		meta, err = buildCreated(updates, location)
		return err
	})
	if err != nil {
		return nil, err
	}
	location = strings.TrimRight(meta.Location(), "/")
	if err := s.checkLocation(st, id, location); err != nil {
		return nil, err
	}
	p := &step{id: id}
	if p.next, err = encodeMetadata(meta, nil); err != nil {
		return nil, err
	}
	p.next.URI = nextMetadataURI(location, "")
	return p, nil
}

// buildCreated applies a new table's updates. What they leave out (spec, sort
// order, location) is what a table has by default.
func buildCreated(updates table.Updates, location string) (table.Metadata, error) {
	version := table.DefaultFormatVersion
	has := map[string]bool{}
	for _, u := range updates {
		has[u.Action()] = true
		if u.Action() == table.UpdateUpgradeFormatVersion {
			// The update's field is not exported, its JSON is.
			raw, err := json.Marshal(u)
			if err != nil {
				return nil, badRequest("%s: %v", u.Action(), err)
			}
			var v struct {
				Version int `json:"format-version"`
			}
			if err := json.Unmarshal(raw, &v); err != nil {
				return nil, badRequest("%s: %v", u.Action(), err)
			}
			version = v.Version
		}
	}
	b, err := table.NewMetadataBuilder(version)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	apply := func(u table.Update) error {
		if err := u.Apply(b); err != nil {
			return badRequest("%s: %v", u.Action(), err)
		}
		return nil
	}
	// Defaults that later updates may lean on, and that they replace, go first.
	if !has[table.UpdateSetLocation] {
		if err := b.SetLoc(location); err != nil {
			return nil, badRequest("%v", err)
		}
	}
	if !has[table.UpdateAssignUUID] {
		if err := b.SetUUID(uuid.New()); err != nil {
			return nil, badRequest("%v", err)
		}
	}
	for i, u := range updates {
		if err := apply(u); err != nil {
			return nil, err
		}
		// The spec and order need a current schema, and snapshots need them.
		if u.Action() != table.UpdateSetCurrentSchema || slices.ContainsFunc(updates[:i], func(v table.Update) bool { return v.Action() == table.UpdateSetCurrentSchema }) {
			continue
		}
		if !has[table.UpdateAddSpec] {
			if err := apply(table.NewAddPartitionSpecUpdate(iceberg.UnpartitionedSpec, true)); err != nil {
				return nil, err
			}
		}
		if !has[table.UpdateSetDefaultSpec] && !has[table.UpdateAddSpec] {
			if err := apply(table.NewSetDefaultSpecUpdate(-1)); err != nil {
				return nil, err
			}
		}
		if !has[table.UpdateAddSortOrder] {
			order := table.UnsortedSortOrder
			if err := apply(table.NewAddSortOrderUpdate(&order)); err != nil {
				return nil, err
			}
			if err := apply(table.NewSetDefaultSortOrderUpdate(-1)); err != nil {
				return nil, err
			}
		}
	}
	meta, err := b.Build()
	if err != nil {
		return nil, badRequest("create table: %v", err)
	}
	return meta, nil
}

// present is raw, or nil if the field was left out or null.
func present(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	return raw
}

package catalog

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
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
		return s.replyTable(c, "", made.JSON)
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

// present is raw, or nil if the field was left out or null.
func present(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	return raw
}

package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/view"
)

func hasView(st *State, id Ident) bool {
	_, ok := st.View(id)
	return ok
}

func (s *server) listViews(ctx context.Context, c *call) error {
	p, err := c.page()
	if err != nil {
		return err
	}
	st, err := s.state(ctx, c)
	if err != nil {
		return err
	}
	ns, err := c.namespace(st)
	if err != nil {
		return err
	}
	if _, ok := st.Namespace(ns); !ok {
		return noSuchNamespace(ns)
	}
	var names []string
	for id := range st.Views() {
		if slices.Equal(id.Namespace, ns) {
			names = append(names, id.Name)
		}
	}
	return c.reply(newIdentPage(ns, names, p))
}

func (s *server) view(ctx context.Context, c *call) (View, error) {
	st, err := s.state(ctx, c)
	if err != nil {
		return View{}, err
	}
	id, err := c.ident(st, hasView)
	if err != nil {
		return View{}, err
	}
	v, ok := st.View(id)
	if !ok {
		return v, noSuchView(id)
	}
	return v, nil
}

func (s *server) viewExists(ctx context.Context, c *call) error {
	if _, err := s.view(ctx, c); err != nil {
		return err
	}
	return c.noContent()
}

func (s *server) loadView(ctx context.Context, c *call) error {
	v, err := s.view(ctx, c)
	if err != nil {
		return err
	}
	return s.replyView(ctx, c, v.Metadata)
}

func (s *server) replyView(ctx context.Context, c *call, uri string) error {
	data, err := s.readObject(ctx, uri)
	if err != nil {
		return err
	}
	return s.replyTable(c, uri, data, s.o.Config)
}

func (s *server) createView(ctx context.Context, c *call) error {
	var in struct {
		Name       string             `json:"name"`
		Location   string             `json:"location"`
		Schema     json.RawMessage    `json:"schema"`
		Version    json.RawMessage    `json:"view-version"`
		Properties iceberg.Properties `json:"properties"`
	}
	if err := c.body(&in); err != nil {
		return err
	}
	if err := checkName(in.Name); err != nil {
		return err
	}
	if present(in.Schema) == nil || present(in.Version) == nil {
		return badRequest("a view needs schema and view-version")
	}
	location, uri := strings.TrimRight(in.Location, "/"), ""
	var uuid string
	_, err := s.change(ctx, c, func(ctx context.Context, st *State) (install, error) {
		ns, err := c.namespace(st)
		if err != nil {
			return nil, err
		}
		id := Ident{Namespace: ns, Name: in.Name}
		if _, ok := st.Namespace(ns); !ok {
			return nil, noSuchNamespace(ns)
		}
		if err := nameTaken(st, id); err != nil {
			return nil, err
		}
		if location == "" {
			if location, err = s.newLocation(st, id); err != nil {
				return nil, err
			}
		}
		if err := s.checkLocation(st, id, location); err != nil {
			return nil, err
		}
		if uri == "" {
			data, id, err := newViewMetadata(in.Schema, in.Version, location, in.Properties)
			if err != nil {
				return nil, err
			}
			made := nextMetadataURI(location, "")
			if err := s.putObject(ctx, made, data); err != nil {
				return nil, err
			}
			uri, uuid = made, id
		}
		c.outcome = uri
		return func(next *State) { next.PutView(id, View{UUID: uuid, Location: location, Metadata: uri}) }, nil
	})
	if err != nil {
		return err
	}
	return s.replyView(ctx, c, c.outcome)
}

func newViewMetadata(rawSchema, rawVersion json.RawMessage, location string, props iceberg.Properties) (data []byte, uuid string, err error) {
	err = guard(func() error {
		schema, version := &iceberg.Schema{}, &view.Version{}
		if err := json.Unmarshal(rawSchema, schema); err != nil {
			return badRequest("malformed schema: %v", err)
		}
		if err := json.Unmarshal(rawVersion, version); err != nil {
			return badRequest("malformed view-version: %v", err)
		}
		meta, err := view.NewMetadata(version, schema, location, props)
		if err != nil {
			return badRequest("create view: %v", err)
		}
		uuid = meta.ViewUUID().String()
		data, err = json.Marshal(meta)
		return err
	})
	return data, uuid, err
}

// replaceView commits changes to a view.
func (s *server) replaceView(ctx context.Context, c *call) error {
	var in struct {
		Requirements json.RawMessage `json:"requirements"`
		Updates      json.RawMessage `json:"updates"`
	}
	if err := c.body(&in); err != nil {
		return err
	}
	based, uri, location := "", "", ""
	_, err := s.change(ctx, c, func(ctx context.Context, st *State) (install, error) {
		id, err := c.ident(st, hasView)
		if err != nil {
			return nil, err
		}
		v, ok := st.View(id)
		if !ok {
			return nil, noSuchView(id)
		}
		if based != v.Metadata {
			base, err := s.readObject(ctx, v.Metadata)
			if err != nil {
				return nil, unavailable("read the view's metadata", err)
			}
			data, place, err := nextViewMetadata(base, in.Requirements, in.Updates)
			if err != nil {
				return nil, err
			}
			if data == nil {
				c.outcome = v.Metadata
				return nil, ErrUnchanged
			}
			if place != v.Location {
				if err := s.checkLocation(st, id, place); err != nil {
					return nil, err
				}
			}
			made := nextMetadataURI(place, v.Metadata)
			if err := s.putObject(ctx, made, data); err != nil {
				return nil, err
			}
			based, uri, location = v.Metadata, made, place
		}
		c.outcome = uri
		return func(next *State) { next.PutView(id, View{UUID: v.UUID, Location: location, Metadata: uri}) }, nil
	})
	if err != nil {
		return err
	}
	return s.replyView(ctx, c, c.outcome)
}

// nextViewMetadata applies updates to a view's metadata; nil data: they say
// what is so already.
func nextViewMetadata(base []byte, rawReqs, rawUpdates json.RawMessage) (data []byte, location string, err error) {
	err = guard(func() error {
		meta, err := view.ParseMetadataBytes(base)
		if err != nil {
			return fmt.Errorf("read view metadata: %w", err)
		}
		var reqs view.Requirements
		if raw := present(rawReqs); raw != nil {
			if err := json.Unmarshal(raw, &reqs); err != nil {
				return badRequest("malformed requirements: %v", err)
			}
		}
		var updates view.Updates
		if raw := present(rawUpdates); raw != nil {
			if err := json.Unmarshal(raw, &updates); err != nil {
				return badRequest("malformed updates: %v", err)
			}
		}
		for _, r := range reqs {
			if err := r.Validate(meta); err != nil {
				return commitFailed("%v", err)
			}
		}
		b, err := view.MetadataBuilderFromBase(meta)
		if err != nil {
			return fmt.Errorf("read view metadata: %w", err)
		}
		for _, u := range updates {
			if err := u.Apply(b); err != nil {
				return badRequest("%s: %v", u.Action(), err)
			}
		}
		if b.Err() == nil && !b.HasChanges() {
			return nil
		}
		next, err := b.Build()
		if err != nil {
			return badRequest("the commit leads to invalid view metadata: %v", err)
		}
		if next.ViewUUID() != meta.ViewUUID() {
			return badRequest("a view's uuid cannot be changed")
		}
		location = strings.TrimRight(next.Location(), "/")
		data, err = json.Marshal(next)
		return err
	})
	return data, location, err
}

func (s *server) dropView(ctx context.Context, c *call) error {
	_, err := s.change(ctx, c, func(_ context.Context, st *State) (install, error) {
		id, err := c.ident(st, hasView)
		if err != nil {
			return nil, err
		}
		if !hasView(st, id) {
			return nil, noSuchView(id)
		}
		return func(next *State) { next.DropView(id) }, nil
	})
	if err != nil {
		return err
	}
	return c.noContent()
}

func (s *server) renameView(ctx context.Context, c *call) error {
	var in renameRequest
	if err := c.body(&in); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	_, err := s.change(ctx, c, func(_ context.Context, st *State) (install, error) {
		v, ok := st.View(in.Source)
		if !ok {
			return nil, noSuchView(in.Source)
		}
		if _, ok := st.Namespace(in.Destination.Namespace); !ok {
			return nil, noSuchNamespace(in.Destination.Namespace)
		}
		if err := nameTaken(st, in.Destination); err != nil {
			return nil, err
		}
		return func(next *State) {
			next.DropView(in.Source)
			next.PutView(in.Destination, v)
		}, nil
	})
	if err != nil {
		return err
	}
	return c.noContent()
}

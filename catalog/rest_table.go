package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// visibleTable is a table that readers see. A mirrored one that has no
// metadata yet (it is loading, or skipped) is not there for them, though its
// name is taken.
func visibleTable(st *State, id Ident) (Table, bool) {
	t, ok := st.Table(id)
	return t, ok && t.Metadata != ""
}

func hasTable(st *State, id Ident) bool {
	_, ok := st.Table(id)
	return ok
}

// nameTaken refuses a name that a table or view has.
func nameTaken(st *State, id Ident) error {
	if t, ok := st.Table(id); ok {
		if t.Metadata == "" {
			return alreadyExists("%s is the name of a mirrored table that is not in the lake yet", id)
		}
		return alreadyExists("Table already exists: %s", id)
	}
	if _, ok := st.View(id); ok {
		return alreadyExists("View with same name already exists: %s", id)
	}
	return nil
}

type identPage struct {
	Next        *string `json:"next-page-token,omitempty"`
	Identifiers []Ident `json:"identifiers"`
}

func newIdentPage(ns, names []string, p page) identPage {
	part, next := p.cut(names)
	out := identPage{next, make([]Ident, len(part))}
	for i, name := range part {
		out.Identifiers[i] = Ident{Namespace: ns, Name: name}
	}
	return out
}

func (s *server) listTables(ctx context.Context, c *call) error {
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
	for id, t := range st.Tables() {
		if t.Metadata != "" && slices.Equal(id.Namespace, ns) {
			names = append(names, id.Name)
		}
	}
	return c.reply(newIdentPage(ns, names, p))
}

// table is the path's table.
func (s *server) table(ctx context.Context, c *call) (Ident, Table, error) {
	st, err := s.state(ctx, c)
	if err != nil {
		return Ident{}, Table{}, err
	}
	id, err := c.ident(st, hasTable)
	if err != nil {
		return id, Table{}, err
	}
	t, ok := visibleTable(st, id)
	if !ok {
		return id, t, noSuchTable(id)
	}
	return id, t, nil
}

func (s *server) tableExists(ctx context.Context, c *call) error {
	if _, _, err := s.table(ctx, c); err != nil {
		return err
	}
	return c.noContent()
}

func (s *server) loadTable(ctx context.Context, c *call) error {
	mode := c.query.Get("snapshots")
	switch mode {
	case "":
		mode = "all"
	case "all", "refs":
	default:
		return badRequest("snapshots is all or refs, not %q", mode)
	}
	_, t, err := s.table(ctx, c)
	if err != nil {
		return err
	}
	config := s.o.Config
	if c.pinned != nil && t.Stale() { // against the warehouse's own, see pinOverrides
		config = maps.Clone(config)
		if config == nil {
			config = map[string]string{}
		}
		config["firn.lsn"], config["firn.state"] = t.Mirror.LSN.String(), t.Mirror.State
	}
	tag := s.tableTag(t.Metadata, mode)
	if noneMatch(c.r, tag) {
		c.w.Header().Set("ETag", tag)
		c.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	f, err := s.readMetadata(ctx, t.Metadata)
	if err != nil {
		return err
	}
	data := f.JSON
	if mode == "refs" {
		if data, err = refsOnly(f); err != nil {
			return err
		}
	}
	c.w.Header().Set("ETag", tag)
	return s.replyTable(c, f.URI, data, config)
}

// noneMatch reports whether the client has this very version.
func noneMatch(r *http.Request, tag string) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("If-None-Match"), ","), ",") {
		part = strings.TrimSpace(part)
		if part == "*" || strings.TrimPrefix(part, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

// replyTable answers with a table's metadata as it lies on the store; encoding
// it again for each reader would cost more than all the rest.
func (s *server) replyTable(c *call, uri string, metadata []byte, config map[string]string) error {
	head := struct {
		Config   map[string]string `json:"config"`
		Location string            `json:"metadata-location,omitempty"`
	}{config, uri}
	if head.Config == nil {
		head.Config = map[string]string{}
	}
	data, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	data = append(data[:len(data)-1], `,"metadata":`...)
	return c.replyBytes(append(append(data, metadata...), '}'))
}

// replyOutcome answers a change of one table with the metadata it led to.
func (s *server) replyOutcome(ctx context.Context, c *call) error {
	f, err := s.readMetadata(ctx, c.outcome)
	if err != nil {
		return err
	}
	c.w.Header().Set("ETag", s.tableTag(f.URI, "all"))
	return s.replyTable(c, f.URI, f.JSON, s.o.Config)
}

// dropTable forgets the table. With purgeRequested its files are as dead as
// without: the running owner deletes what nothing names, after the grace time.
func (s *server) dropTable(ctx context.Context, c *call) error {
	if v := c.query.Get("purgeRequested"); v != "" && !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false") {
		return badRequest("purgeRequested is true or false, not %q", v)
	}
	_, err := s.change(ctx, c, func(_ context.Context, st *State) (install, error) {
		id, err := c.ident(st, hasTable)
		if err != nil {
			return nil, err
		}
		t, ok := visibleTable(st, id)
		if !ok {
			return nil, noSuchTable(id)
		}
		if t.Mirror != nil {
			return nil, forbidden("%s mirrors a Postgres table and cannot be dropped here; drop it in Postgres, or leave it out by the setting tables in firn.yaml", id)
		}
		return func(next *State) { next.DropTable(id) }, nil
	})
	if err != nil {
		return err
	}
	return c.noContent()
}

type renameRequest struct {
	Source      Ident `json:"source"`
	Destination Ident `json:"destination"`
}

func (in renameRequest) check() error {
	for _, id := range []Ident{in.Source, in.Destination} {
		if err := checkNamespace(id.Namespace); err != nil {
			return err
		}
		if err := checkName(id.Name); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) renameTable(ctx context.Context, c *call) error {
	var in renameRequest
	if err := c.body(&in); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	_, err := s.change(ctx, c, func(_ context.Context, st *State) (install, error) {
		t, ok := visibleTable(st, in.Source)
		if !ok {
			return nil, noSuchTable(in.Source)
		}
		if t.Mirror != nil {
			return nil, forbidden("%s mirrors a Postgres table and cannot be renamed here; rename it in Postgres", in.Source)
		}
		if _, ok := st.Namespace(in.Destination.Namespace); !ok {
			return nil, noSuchNamespace(in.Destination.Namespace)
		}
		if err := nameTaken(st, in.Destination); err != nil {
			return nil, err
		}
		return func(next *State) {
			next.DropTable(in.Source)
			next.PutTable(in.Destination, t)
		}, nil
	})
	if err != nil {
		return err
	}
	return c.noContent()
}

// registerTable makes a table of a metadata file that is in the warehouse.
func (s *server) registerTable(ctx context.Context, c *call) error {
	var in struct {
		Name      string `json:"name"`
		Location  string `json:"metadata-location"`
		Overwrite bool   `json:"overwrite"`
	}
	if err := c.body(&in); err != nil {
		return err
	}
	if err := checkName(in.Name); err != nil {
		return err
	}
	if in.Location == "" {
		return badRequest("metadata-location is missing")
	}
	_, err := s.change(ctx, c, func(ctx context.Context, st *State) (install, error) {
		ns, err := c.namespace(st)
		if err != nil {
			return nil, err
		}
		if _, ok := st.Namespace(ns); !ok {
			return nil, noSuchNamespace(ns)
		}
		id := Ident{Namespace: ns, Name: in.Name}
		if old, ok := st.Table(id); ok && in.Overwrite {
			if old.Mirror != nil {
				return nil, forbidden("%s mirrors a Postgres table and cannot be replaced here", id)
			}
		} else if err := nameTaken(st, id); err != nil {
			return nil, err
		}
		f, err := s.readRegistered(ctx, in.Location)
		if err != nil {
			return nil, err
		}
		location := strings.TrimRight(f.Meta.Location(), "/")
		if err := s.checkLocation(st, id, location); err != nil {
			return nil, err
		}
		t := pointer(f)
		for other, o := range st.Tables() {
			if o.UUID == t.UUID && other.key() != id.key() {
				return nil, alreadyExists("table %s has the same uuid %s", other, t.UUID)
			}
		}
		c.outcome = f.URI
		return func(next *State) { next.PutTable(id, t) }, nil
	})
	if err != nil {
		return err
	}
	return s.replyOutcome(ctx, c)
}

// readRegistered reads a metadata file that a client names: what is wrong with
// it is the client's fault.
func (s *server) readRegistered(ctx context.Context, uri string) (*metadataFile, error) {
	if _, err := s.keyOf(uri); err != nil {
		return nil, err
	}
	data, err := s.readObject(ctx, uri)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, badRequest("there is no metadata file %s", uri)
	}
	if err != nil {
		return nil, unavailable("read "+uri, err)
	}
	f, err := parseMetadata(uri, data)
	if err != nil {
		return nil, badRequest("%s is no table metadata: %v", uri, err)
	}
	s.cache.put(f)
	return f, nil
}

// pointer is the catalog's record of a table at this metadata.
func pointer(f *metadataFile) Table {
	t := Table{
		UUID:           f.Meta.TableUUID().String(),
		Location:       strings.TrimRight(f.Meta.Location(), "/"),
		Metadata:       f.URI,
		SequenceNumber: f.Meta.LastSequenceNumber(),
	}
	if cur := f.Meta.CurrentSnapshot(); cur != nil {
		t.SnapshotID = cur.SnapshotID
	}
	return t
}

// reportMetrics takes the report of a scan or commit and lets it go: what firn
// shows about itself it measures itself.
func (s *server) reportMetrics(ctx context.Context, c *call) error {
	var in map[string]json.RawMessage
	if err := c.body(&in); err != nil {
		return err
	}
	if _, ok := in["report-type"]; !ok {
		return badRequest("report-type is missing")
	}
	if _, _, err := s.table(ctx, c); err != nil {
		return err
	}
	return c.noContent()
}

package catalog

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// page is the part of a listing that a client asked for.
type page struct {
	after string // keys up to this one have been given; "" for the first page
	size  int    // 0: all
}

// page reads pageToken and pageSize. A client that names neither gets all.
func (c *call) page() (page, error) {
	p := page{}
	if c.query.Has("pageToken") {
		p.size = pageSizeMax
		after, err := base64.RawURLEncoding.DecodeString(c.query.Get("pageToken"))
		if err != nil {
			return p, badRequest("malformed pageToken")
		}
		p.after = string(after)
	}
	if text := c.query.Get("pageSize"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return p, badRequest("malformed pageSize: %q", text)
		}
		p.size = min(n, pageSizeMax)
	}
	return p, nil
}

// cut takes the page out of ascending keys, and makes the token of the next.
func (p page) cut(keys []string) (part []string, next *string) {
	if p.after != "" {
		at, found := slices.BinarySearch(keys, p.after)
		if found {
			at++
		}
		keys = keys[at:]
	}
	if p.size == 0 || len(keys) <= p.size {
		return keys, nil
	}
	keys = keys[:p.size]
	token := base64.RawURLEncoding.EncodeToString([]byte(keys[len(keys)-1]))
	return keys, &token
}

func (s *server) listNamespaces(ctx context.Context, c *call) error {
	p, err := c.page()
	if err != nil {
		return err
	}
	st, err := s.state(ctx, c)
	if err != nil {
		return err
	}
	var parent []string
	if text := c.query.Get("parent"); text != "" {
		parent = splitNamespace(text)
		if err := checkNamespace(parent); err != nil {
			return err
		}
		if _, ok := st.Namespace(parent); !ok {
			return noSuchNamespace(parent)
		}
	}
	var keys []string
	for ns := range st.Namespaces() {
		if len(ns) == len(parent)+1 && slices.Equal(ns[:len(parent)], parent) {
			keys = append(keys, namespaceKey(ns))
		}
	}
	part, next := p.cut(keys)
	out := struct {
		Next       *string    `json:"next-page-token,omitempty"`
		Namespaces [][]string `json:"namespaces"`
	}{next, make([][]string, len(part))}
	for i, k := range part {
		out.Namespaces[i] = splitNamespace(k)
	}
	return c.reply(out)
}

type namespaceAnswer struct {
	Namespace  []string          `json:"namespace"`
	Properties map[string]string `json:"properties"`
}

func (s *server) createNamespace(ctx context.Context, c *call) error {
	var in struct {
		Namespace  []string          `json:"namespace"`
		Properties map[string]string `json:"properties"`
	}
	if err := c.body(&in); err != nil {
		return err
	}
	if err := checkNamespace(in.Namespace); err != nil {
		return err
	}
	if in.Properties == nil {
		in.Properties = map[string]string{}
	}
	_, err := s.change(ctx, c, func(_ context.Context, st *State) (install, error) {
		if _, ok := st.Namespace(in.Namespace); ok {
			return nil, alreadyExists("Namespace already exists: %s", strings.Join(in.Namespace, "."))
		}
		if up := in.Namespace[:len(in.Namespace)-1]; len(up) > 0 {
			if _, ok := st.Namespace(up); !ok {
				return nil, noSuchNamespace(up)
			}
		}
		return func(next *State) { next.PutNamespace(in.Namespace, in.Properties) }, nil
	})
	if err != nil {
		return err
	}
	return c.reply(namespaceAnswer{in.Namespace, in.Properties})
}

func (s *server) loadNamespace(ctx context.Context, c *call) error {
	ns, props, err := s.namespace(ctx, c)
	if err != nil {
		return err
	}
	if props == nil {
		props = map[string]string{}
	}
	return c.reply(namespaceAnswer{ns, props})
}

func (s *server) namespaceExists(ctx context.Context, c *call) error {
	if _, _, err := s.namespace(ctx, c); err != nil {
		return err
	}
	return c.noContent()
}

// namespace is the path's namespace with its properties.
func (s *server) namespace(ctx context.Context, c *call) ([]string, map[string]string, error) {
	st, err := s.state(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	ns, err := c.namespace(st)
	if err != nil {
		return nil, nil, err
	}
	props, ok := st.Namespace(ns)
	if !ok {
		return nil, nil, noSuchNamespace(ns)
	}
	return ns, props, nil
}

func (s *server) dropNamespace(ctx context.Context, c *call) error {
	_, err := s.change(ctx, c, func(_ context.Context, st *State) (install, error) {
		ns, err := c.namespace(st)
		if err != nil {
			return nil, err
		}
		if _, ok := st.Namespace(ns); !ok {
			return nil, noSuchNamespace(ns)
		}
		if what := occupant(st, ns); what != "" {
			return nil, &restError{Status: http.StatusConflict, Type: "NamespaceNotEmptyException",
				Message: "Namespace " + strings.Join(ns, ".") + " is not empty: it holds " + what}
		}
		return func(next *State) { next.DropNamespace(ns) }, nil
	})
	if err != nil {
		return err
	}
	return c.noContent()
}

// occupant names something inside a namespace; "" if it is empty.
func occupant(st *State, ns []string) string {
	for id := range st.Tables() {
		if slices.Equal(id.Namespace, ns) {
			return "table " + id.Name
		}
	}
	for id := range st.Views() {
		if slices.Equal(id.Namespace, ns) {
			return "view " + id.Name
		}
	}
	for other := range st.Namespaces() {
		if len(other) > len(ns) && slices.Equal(other[:len(ns)], ns) {
			return "namespace " + strings.Join(other, ".")
		}
	}
	return ""
}

func (s *server) updateNamespace(ctx context.Context, c *call) error {
	var in struct {
		Removals []string          `json:"removals"`
		Updates  map[string]string `json:"updates"`
	}
	if err := c.body(&in); err != nil {
		return err
	}
	for _, k := range in.Removals {
		if _, both := in.Updates[k]; both {
			return unprocessable("property %q is both set and removed", k)
		}
	}
	type answer struct {
		Updated []string `json:"updated"`
		Removed []string `json:"removed"`
		Missing []string `json:"missing"`
	}
	var out answer
	_, err := s.change(ctx, c, func(_ context.Context, st *State) (install, error) {
		ns, err := c.namespace(st)
		if err != nil {
			return nil, err
		}
		old, ok := st.Namespace(ns)
		if !ok {
			return nil, noSuchNamespace(ns)
		}
		out = answer{Updated: slices.Sorted(maps.Keys(in.Updates)), Removed: []string{}, Missing: []string{}}
		if out.Updated == nil {
			out.Updated = []string{}
		}
		props := maps.Clone(old)
		if props == nil {
			props = map[string]string{}
		}
		maps.Copy(props, in.Updates)
		for _, k := range in.Removals {
			if _, there := old[k]; there {
				delete(props, k)
				out.Removed = append(out.Removed, k)
			} else {
				out.Missing = append(out.Missing, k)
			}
		}
		if maps.Equal(props, old) {
			return nil, ErrUnchanged
		}
		detail, err := json.Marshal(out)
		if err != nil {
			return nil, fmt.Errorf("encode outcome: %w", err)
		}
		c.outcome = string(detail)
		return func(next *State) { next.PutNamespace(ns, props) }, nil
	})
	if err != nil {
		return err
	}
	if c.replayed {
		return c.replyBytes([]byte(c.outcome))
	}
	return c.reply(out)
}

// warehouseKnown reports whether a client that asks for this warehouse is at
// the right place: by name, by URI, or without saying.
func (s *server) warehouseKnown(name string) bool {
	if name == "" || name == s.o.Warehouse {
		return true
	}
	root := strings.TrimRight(s.store.URI(""), "/")
	if strings.TrimRight(name, "/") == root {
		return true
	}
	// The same folder, written with the other number of slashes.
	if u, err := url.Parse(name); err == nil && u.Scheme == "file" {
		if r, err := url.Parse(root); err == nil && r.Scheme == "file" {
			return strings.TrimRight(u.Path, "/") == strings.TrimRight(r.Path, "/")
		}
	}
	return false
}

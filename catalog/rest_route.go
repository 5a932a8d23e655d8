package catalog

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// call is a parsed request: the shape of its path, and the names in it.
type call struct {
	r     *http.Request
	w     http.ResponseWriter
	shape string // as in routes: namespaces/*/tables/*
	// prefix is a pinned warehouse's, pinned the state that it names; "" and
	// nil for the present.
	prefix string
	pinned *State
	// names are the path's variables, escapes undone. A namespace is still
	// joined by the separator.
	names []string
	query url.Values
	data  []byte // the body, once it is read

	// outcome is what an idempotency key is remembered with; replayed tells
	// that it comes from the first request with that key.
	outcome  string
	replayed bool
}

// route is one operation.
type route struct {
	method string
	shape  string
	open   bool // answered without a token
	// spec is how /v1/config lists it; empty: it is not listed.
	spec   string
	handle func(*server, context.Context, *call) error
}

// routes is filled by an initializer function because the config route lists
// the others.
var routes = allRoutes()

func allRoutes() []route {
	const ns = "namespaces/*"
	const spec = "/v1/{prefix}/"
	const specNS = spec + "namespaces/{namespace}"
	return []route{
		{method: "GET", shape: "config", handle: (*server).config},
		{method: "POST", shape: "oauth/tokens", open: true, handle: (*server).oauthToken},

		{method: "GET", shape: "namespaces", spec: spec + "namespaces", handle: (*server).listNamespaces},
		{method: "POST", shape: "namespaces", spec: spec + "namespaces", handle: (*server).createNamespace},
		{method: "GET", shape: ns, spec: specNS, handle: (*server).loadNamespace},
		{method: "HEAD", shape: ns, spec: specNS, handle: (*server).namespaceExists},
		{method: "DELETE", shape: ns, spec: specNS, handle: (*server).dropNamespace},
		{method: "POST", shape: ns + "/properties", spec: specNS + "/properties", handle: (*server).updateNamespace},

		{method: "GET", shape: ns + "/tables", spec: specNS + "/tables", handle: (*server).listTables},
		{method: "POST", shape: ns + "/tables", spec: specNS + "/tables", handle: (*server).createTable},
		{method: "GET", shape: ns + "/tables/*", spec: specNS + "/tables/{table}", handle: (*server).loadTable},
		{method: "HEAD", shape: ns + "/tables/*", spec: specNS + "/tables/{table}", handle: (*server).tableExists},
		{method: "POST", shape: ns + "/tables/*", spec: specNS + "/tables/{table}", handle: (*server).commitTable},
		{method: "DELETE", shape: ns + "/tables/*", spec: specNS + "/tables/{table}", handle: (*server).dropTable},
		{method: "POST", shape: ns + "/tables/*/metrics", spec: specNS + "/tables/{table}/metrics", handle: (*server).reportMetrics},
		{method: "POST", shape: ns + "/register", spec: specNS + "/register", handle: (*server).registerTable},
		{method: "POST", shape: "tables/rename", spec: spec + "tables/rename", handle: (*server).renameTable},
		{method: "POST", shape: "transactions/commit", spec: spec + "transactions/commit", handle: (*server).commitTransaction},

		{method: "GET", shape: ns + "/views", spec: specNS + "/views", handle: (*server).listViews},
		{method: "POST", shape: ns + "/views", spec: specNS + "/views", handle: (*server).createView},
		{method: "GET", shape: ns + "/views/*", spec: specNS + "/views/{view}", handle: (*server).loadView},
		{method: "HEAD", shape: ns + "/views/*", spec: specNS + "/views/{view}", handle: (*server).viewExists},
		{method: "POST", shape: ns + "/views/*", spec: specNS + "/views/{view}", handle: (*server).replaceView},
		{method: "DELETE", shape: ns + "/views/*", spec: specNS + "/views/{view}", handle: (*server).dropView},
		{method: "POST", shape: "views/rename", spec: spec + "views/rename", handle: (*server).renameView},
	}
}

// endpoints lists the operations as clients compare them: exact strings.
func endpoints() []string {
	var out []string
	for _, rt := range allRoutes() {
		if rt.spec != "" {
			out = append(out, rt.method+" "+rt.spec)
		}
	}
	return out
}

// parseCall takes the path apart before its escapes are undone, so that a
// slash or a dot inside a name stays in the name.
func parseCall(r *http.Request) (*call, error) {
	c := &call{r: r}
	segs := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if segs[0] != "v1" {
		return nil, noRoute(r)
	}
	segs = segs[1:]
	if len(segs) > 1 && strings.HasPrefix(segs[0], pinMark) {
		c.prefix, segs = segs[0], segs[1:]
	}
	shape := make([]string, len(segs))
	for i, seg := range segs {
		// Variables stand at the second and fourth place, under namespaces.
		if len(segs) > 0 && segs[0] == "namespaces" && (i == 1 || i == 3) {
			name, err := url.PathUnescape(seg)
			if err != nil || name == "" || !utf8.ValidString(name) {
				return nil, badRequest("malformed name in path: %q", seg)
			}
			c.names = append(c.names, name)
			shape[i] = "*"
			continue
		}
		shape[i] = seg
	}
	c.shape = strings.Join(shape, "/")
	var err error
	if c.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return nil, badRequest("malformed query: %v", err)
	}
	return c, nil
}

func findRoute(method, shape string) (*route, error) {
	var allowed []string
	for i := range routes {
		if routes[i].shape != shape {
			continue
		}
		if routes[i].method == method {
			return &routes[i], nil
		}
		allowed = append(allowed, routes[i].method)
	}
	if allowed == nil {
		return nil, &restError{Status: http.StatusNotFound, Type: "NoSuchEndpointException", Message: "no such endpoint: /v1/" + shape}
	}
	return nil, &restError{Status: http.StatusMethodNotAllowed, Type: "UnsupportedOperationException",
		Message: "/v1/" + shape + " answers " + strings.Join(allowed, ", ") + " only"}
}

func noRoute(r *http.Request) error {
	return &restError{Status: http.StatusNotFound, Type: "NoSuchEndpointException", Message: "no such endpoint: " + r.URL.Path}
}

// namespace is the path's namespace. Java clients write a space as "+", which
// others leave as it is: the reading that exists is taken.
func (c *call) namespace(st *State) ([]string, error) {
	ns := splitNamespace(c.names[0])
	if err := checkNamespace(ns); err != nil {
		return nil, err
	}
	if _, ok := st.Namespace(ns); !ok && strings.Contains(c.names[0], "+") {
		spaced := splitNamespace(strings.ReplaceAll(c.names[0], "+", " "))
		if _, ok := st.Namespace(spaced); ok {
			return spaced, nil
		}
	}
	return ns, nil
}

// ident is the path's table or view, with has to tell which reading exists.
func (c *call) ident(st *State, has func(*State, Ident) bool) (Ident, error) {
	ns, err := c.namespace(st)
	if err != nil {
		return Ident{}, err
	}
	id := Ident{Namespace: ns, Name: c.names[1]}
	if err := checkName(id.Name); err != nil {
		return Ident{}, err
	}
	if strings.Contains(id.Name, "+") && !has(st, id) {
		if spaced := (Ident{Namespace: ns, Name: strings.ReplaceAll(id.Name, "+", " ")}); has(st, spaced) {
			return spaced, nil
		}
	}
	return id, nil
}

const (
	nameBytesMax       = 1024
	namespaceLevelsMax = 16
)

func checkNamespace(ns []string) error {
	if len(ns) == 0 || len(ns) > namespaceLevelsMax {
		return badRequest("a namespace has 1 to %d levels", namespaceLevelsMax)
	}
	for _, level := range ns {
		if err := checkName(level); err != nil {
			return err
		}
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return badRequest("a name must not be empty")
	case len(name) > nameBytesMax:
		return badRequest("a name must not be longer than %d bytes", nameBytesMax)
	case !utf8.ValidString(name):
		return badRequest("a name must be valid UTF-8: %q", name)
	case slices.ContainsFunc([]byte(name), func(b byte) bool { return b < 0x20 || b == 0x7f }):
		return badRequest("a name must not hold control characters: %q", name)
	}
	return nil
}

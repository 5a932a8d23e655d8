package catalog

import (
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// keyOf is the store's key of a URI inside the warehouse. The log's own folder
// is not for tables, and a path that climbs is refused before the store
// sees it.
func (s *server) keyOf(uri string) (string, error) {
	key, ok := s.store.Key(uri)
	if !ok {
		return "", &restError{Status: http.StatusBadRequest, Type: "BadRequestException",
			Message: "not in this warehouse (" + strings.TrimSuffix(s.store.URI(""), "/") + "): " + uri}
	}
	segs := strings.Split(strings.Trim(key, "/"), "/")
	if segs[0] == "_firn" || slices.ContainsFunc(segs, func(seg string) bool { return seg == "" || seg == "." || seg == ".." }) {
		return "", badRequest("not a place for a table: %s", uri)
	}
	return key, nil
}

// newLocation is a folder that no table has had: <namespace>/<name>-<random>.
// The namespace's own location property is honoured.
func (s *server) newLocation(st *State, id Ident) (string, error) {
	base := ""
	if props, ok := st.Namespace(id.Namespace); ok {
		base = strings.TrimRight(props["location"], "/")
	}
	if base != "" {
		if _, err := s.keyOf(base); err != nil {
			return "", err
		}
	} else {
		parts := make([]string, len(id.Namespace))
		for i, level := range id.Namespace {
			parts[i] = pathName(level)
		}
		base = s.store.URI(strings.Join(parts, "/"))
	}
	return base + "/" + pathName(id.Name) + "-" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12], nil
}

// pathName is name with what paths and URIs give a meaning replaced. Two names
// may come out the same: the random suffix is what keeps tables apart.
func pathName(name string) string {
	const bytesMax = 64
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		case r == '.':
			return r
		}
		return '_'
	}, name)
	if len(clean) > bytesMax {
		clean = clean[:bytesMax]
	}
	// Neither "." and "..", nor a name that engines take for hidden, nor the
	// folder of the log.
	if strings.HasPrefix(clean, ".") || strings.HasPrefix(clean, "_") {
		clean = "t" + clean
	}
	return clean
}

// checkLocation refuses a folder outside the warehouse, or one that lies in
// another table's or holds it: dropping one table would then take files of the
// other.
func (s *server) checkLocation(st *State, id Ident, location string) error {
	key, err := s.keyOf(location)
	if err != nil {
		return err
	}
	key = strings.Trim(key, "/") + "/"
	for other, t := range st.Tables() {
		if other.key() == id.key() {
			continue
		}
		k, ok := s.store.Key(t.Location)
		if !ok {
			continue
		}
		k = strings.Trim(k, "/") + "/"
		if strings.HasPrefix(key, k) || strings.HasPrefix(k, key) {
			return alreadyExists("the location %s belongs to table %s", location, other)
		}
	}
	return nil
}

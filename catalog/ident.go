package catalog

import (
	"slices"
	"strings"
)

// Ident names a table or view: a namespace of one or more levels, and a name.
// Both are kept exactly as they were given.
type Ident struct {
	Namespace []string `json:"namespace"`
	Name      string   `json:"name"`
}

// String joins the levels by dots; it is for people and may be ambiguous.
func (i Ident) String() string {
	return strings.Join(append(slices.Clone(i.Namespace), i.Name), ".")
}

// keySeparator is what the REST protocol separates namespace levels by, so no
// level can hold it.
const keySeparator = "\x1f"

func namespaceKey(ns []string) string { return strings.Join(ns, keySeparator) }

func splitNamespace(key string) []string { return strings.Split(key, keySeparator) }

func (i Ident) key() string { return namespaceKey(i.Namespace) + keySeparator + i.Name }

func splitIdent(key string) Ident {
	at := strings.LastIndex(key, keySeparator)
	return Ident{Namespace: splitNamespace(key[:at]), Name: key[at+1:]}
}

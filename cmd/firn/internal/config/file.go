package config

import (
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ReadFile reads firn.yaml over c. Errors are *Error and name file, line and
// key: a key that doesn't exist is one, for a misspelt setting is not in force.
func (c *Config) ReadFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return bad("read configuration: %v", err)
	}
	defer f.Close()
	const sizeMax = 1 << 20
	text, err := io.ReadAll(io.LimitReader(f, sizeMax+1))
	if err != nil {
		return bad("read configuration: %v", err)
	}
	if len(text) > sizeMax {
		return bad("read configuration %s: it is larger than 1 MB", path)
	}
	return c.parse(path, text)
}

func (c *Config) parse(path string, text []byte) error {
	d := decoder{path: path}
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // an empty file
	} else if err != nil {
		return bad("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return bad("%s: line %d: want one document", path, max(1, more.Line))
	}
	return d.structure(doc.Content[0], "", reflect.ValueOf(c).Elem())
}

// decoder walks the file itself, for yaml's own decoder names Go types where
// it should name the key.
type decoder struct{ path string }

func (d decoder) bad(n *yaml.Node, key, format string, args ...any) error {
	if key != "" {
		key += ": "
	}
	return bad("%s: line %d: %s%s", d.path, n.Line, key, fmt.Sprintf(format, args...))
}

// pairs calls fn with the keys and values of a mapping.
func (d decoder) pairs(n *yaml.Node, at string, fn func(key *yaml.Node, path string, value *yaml.Node) error) error {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return d.bad(n, at, "want settings, one `key: value` a line")
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		path := strings.TrimPrefix(at+"."+key.Value, ".")
		if key.Kind != yaml.ScalarNode {
			return d.bad(key, at, "want a name as key")
		}
		if seen[key.Value] {
			return d.bad(key, path, "it is set twice")
		}
		seen[key.Value] = true
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		if err := fn(key, path, value); err != nil {
			return err
		}
	}
	return nil
}

func (d decoder) structure(n *yaml.Node, at string, into reflect.Value) error {
	return d.pairs(n, at, func(key *yaml.Node, path string, value *yaml.Node) error {
		t := into.Type()
		var known []string
		for i := range t.NumField() {
			name := t.Field(i).Tag.Get("yaml")
			if name == key.Value {
				return d.value(value, path, into.Field(i))
			}
			known = append(known, name)
		}
		return d.bad(key, path, "there is no such setting; there are %s", strings.Join(known, ", "))
	})
}

func (d decoder) value(n *yaml.Node, path string, into reflect.Value) error {
	switch v := into.Addr().Interface().(type) {
	case *TableSettings:
		return d.pairs(n, path, func(key *yaml.Node, path string, value *yaml.Node) error {
			if err := checkPattern(key.Value); err != nil {
				return d.bad(key, path, "%v", err)
			}
			s := PatternSettings{Pattern: key.Value}
			err := d.structure(value, path, reflect.ValueOf(&s.Table).Elem())
			*v = append(*v, s)
			return err
		})
	case *[]string:
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
			*v = []string{n.Value}
			return nil
		}
		if n.Kind != yaml.SequenceNode {
			return d.bad(n, path, "want a list")
		}
		*v = nil
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || item.Tag == "!!null" {
				return d.bad(item, path, "want a list of names")
			}
			*v = append(*v, item.Value)
		}
		return nil
	}
	if v, ok := into.Addr().Interface().(*PartitionBy); ok && n.Kind == yaml.SequenceNode {
		var terms []string
		if err := d.value(n, path, reflect.ValueOf(&terms).Elem()); err != nil {
			return err
		}
		if err := v.UnmarshalText([]byte(strings.Join(terms, ", "))); err != nil {
			return d.bad(n, path, "%v", err)
		}
		return nil
	}
	if into.Kind() == reflect.Struct {
		return d.structure(n, path, into)
	}
	if n.Kind != yaml.ScalarNode {
		return d.bad(n, path, "want a single value")
	}
	if n.Tag == "!!null" {
		return d.bad(n, path, "it has no value")
	}
	switch v := into.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		if err := v.UnmarshalText([]byte(n.Value)); err != nil {
			return d.bad(n, path, "%v", err)
		}
	case *string:
		*v = n.Value
	case *bool:
		b, err := strconv.ParseBool(n.Value)
		if err != nil || n.Tag != "!!bool" {
			return d.bad(n, path, "want true or false, not %q", n.Value)
		}
		*v = b
	default:
		return d.bad(n, path, "settings of type %s can't be read", into.Type())
	}
	return nil
}

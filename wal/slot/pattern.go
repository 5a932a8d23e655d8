package slot

import (
	"fmt"
	"strings"
)

// Patterns choose tables by name: schema.table, where * stands for any text; a
// pattern without a dot is a table of any schema; a leading ! excludes. A table
// is chosen if a pattern includes it, or none includes anything, and none
// excludes it; the order does not matter.
type patterns struct{ include, exclude []string }

func parsePatterns(ps []string) (patterns, error) {
	var out patterns
	for _, p := range ps {
		to := &out.include
		name := strings.TrimSpace(p)
		if rest, not := strings.CutPrefix(name, "!"); not {
			to, name = &out.exclude, rest
		}
		if name == "" {
			return patterns{}, fmt.Errorf("parse table pattern %q: it names nothing", p)
		}
		if !strings.Contains(name, ".") {
			name = "*." + name
		}
		*to = append(*to, name)
	}
	return out, nil
}

func (p patterns) match(t TableName) bool {
	name := t.String()
	for _, e := range p.exclude {
		if glob(e, name) {
			return false
		}
	}
	for _, i := range p.include {
		if glob(i, name) {
			return true
		}
	}
	return len(p.include) == 0
}

// glob matches s against a pattern in which * stands for any text.
func glob(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	last := len(parts) - 1
	for _, part := range parts[1:last] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return strings.HasSuffix(s, parts[last])
}

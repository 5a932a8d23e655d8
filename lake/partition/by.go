// Package partition says which partition of an Iceberg table a row belongs to.
// It reads a user's partition_by, binds it to a schema, and sorts the rows of
// record batches by the partition that the transforms of a spec give them. Pure:
// Arrow in, row numbers and partition values out.
package partition

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/iceberg-go"
)

// By is a parsed partition_by: terms in order. None: the table is not
// partitioned.
type By []Term

// Term is one column and what its values are turned into.
type Term struct {
	Transform iceberg.Transform
	Column    string
}

// Parse reads a partition_by such as
//
//	day(created_at), bucket(16, user_id), truncate(4, sku), country
//
// Transforms are identity (or the column alone), year, month, day, hour, bucket
// and truncate. A column whose name is not made of letters, digits, _ and $ is
// written in double quotes, as in SQL. Names are matched exactly.
func Parse(text string) (By, error) {
	by, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w; want terms such as day(created_at), bucket(16, user_id) or country", err)
	}
	return by, nil
}

func parse(text string) (By, error) {
	p := parser{rest: text}
	var by By
	for {
		if p.skip(); p.rest == "" && len(by) == 0 {
			return nil, nil
		}
		t, err := p.term()
		if err != nil {
			return nil, err
		}
		for _, was := range by {
			if was.Column == t.Column && was.Transform.Equals(t.Transform) {
				return nil, fmt.Errorf("%s is there twice", t)
			}
		}
		by = append(by, t)
		if p.skip(); p.rest == "" {
			return by, nil
		}
		if !p.take(',') {
			return nil, fmt.Errorf("%q follows %s where a comma should", p.rest, t)
		}
	}
}

// String is the form that Parse reads, the same for the same terms.
func (b By) String() string {
	parts := make([]string, len(b))
	for i, t := range b {
		parts[i] = t.String()
	}
	return strings.Join(parts, ", ")
}

// String is the term as Parse reads it.
func (t Term) String() string {
	column := t.Column
	if !plain(column) {
		column = `"` + strings.ReplaceAll(column, `"`, `""`) + `"`
	}
	switch tr := t.Transform.(type) {
	case iceberg.IdentityTransform:
		return column
	case iceberg.BucketTransform:
		return fmt.Sprintf("bucket(%d, %s)", tr.NumBuckets, column)
	case iceberg.TruncateTransform:
		return fmt.Sprintf("truncate(%d, %s)", tr.Width, column)
	}
	return fmt.Sprintf("%s(%s)", t.Transform, column)
}

func letter(r rune) bool {
	return r == '_' || r == '$' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= 0x80
}

func plain(name string) bool {
	return name != "" && strings.IndexFunc(name, func(r rune) bool { return !letter(r) }) < 0
}

// parser reads from the front of rest.
type parser struct{ rest string }

func (p *parser) skip() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

func (p *parser) take(c byte) bool {
	if p.skip(); p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// name reads a word, or what stands in double quotes.
func (p *parser) name() (name string, quoted bool, err error) {
	if p.take('"') {
		var b strings.Builder
		for {
			part, rest, ok := strings.Cut(p.rest, `"`)
			if !ok {
				return "", true, fmt.Errorf("a quote is not closed")
			}
			b.WriteString(part)
			if p.rest = rest; !strings.HasPrefix(rest, `"`) {
				return b.String(), true, nil
			}
			b.WriteByte('"')
			p.rest = rest[1:]
		}
	}
	n := strings.IndexFunc(p.rest, func(r rune) bool { return !letter(r) })
	if n < 0 {
		n = len(p.rest)
	}
	if name, p.rest = p.rest[:n], p.rest[n:]; name == "" {
		return "", false, fmt.Errorf("there is no name before %q", p.rest)
	}
	return name, false, nil
}

func (p *parser) term() (Term, error) {
	name, quoted, err := p.name()
	if err != nil {
		return Term{}, err
	}
	if quoted || !p.take('(') {
		return Term{iceberg.IdentityTransform{}, name}, nil
	}
	t := Term{}
	word := strings.ToLower(name)
	switch word {
	case "identity", "year", "month", "day", "hour":
		t.Transform, err = iceberg.ParseTransform(word)
	case "bucket", "truncate":
		t.Transform, err = p.width(word)
	default:
		err = fmt.Errorf("there is no transform %s: there are identity, year, month, day, hour, bucket and truncate", name)
	}
	if err != nil {
		return Term{}, err
	}
	p.skip()
	if t.Column, _, err = p.name(); err != nil {
		return Term{}, err
	}
	if !p.take(')') {
		return Term{}, fmt.Errorf("%s(%s is not closed", name, t.Column)
	}
	return t, nil
}

// width reads the number that bucket and truncate begin with, and its comma.
func (p *parser) width(word string) (iceberg.Transform, error) {
	p.skip()
	text, _, err := p.name()
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 || !p.take(',') {
		return nil, fmt.Errorf("%s takes a number above zero, then the column: %s(16, user_id)", word, word)
	}
	if word == "bucket" {
		return iceberg.BucketTransform{NumBuckets: int(n)}, nil
	}
	return iceberg.TruncateTransform{Width: int(n)}, nil
}

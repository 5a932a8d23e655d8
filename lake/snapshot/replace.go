package snapshot

import (
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"

	"firn/lake"
)

// replaceInputs takes the inputs of a change's rewrites out of the table, and
// returns their outputs. That no row of an input comes back to life doesn't hang
// on the caller's care: it is checked here, against what the table knows dead.
func (p *prepared) replaceInputs(c *lake.Change) ([]*lake.NewFile, error) {
	p.moves = len(c.Rewrites) > 0 && c.Schema == nil && !c.Truncate && len(c.Add) == 0
	var outputs []*lake.NewFile
	seen := map[string]bool{}
	dead := map[string]*roaring.Bitmap{} // rows of the outputs that were dead in the base
	for _, r := range c.Rewrites {
		p.rewrites++
		p.carried.Join(r.Sum)
		of := roaring.New()
		for i := range r.Moved {
			m := &r.Moved[i]
			if seen[m.From] {
				return nil, fmt.Errorf("%s is an input of two rewrites", m.From)
			}
			seen[m.From] = true
			if err := p.replaceInput(c, m, of); err != nil {
				return nil, err
			}
		}
		if r.Output != nil {
			outputs = append(outputs, r.Output)
			dead[r.Output.Path] = of
		}
	}
	for path, rows := range c.Dead {
		switch was := dead[path]; {
		case rows.IsEmpty() || seen[path]:
		case was == nil || !was.Equals(rows):
			p.moves = false
		}
	}
	return outputs, nil
}

// replaceInput adds to carried the rows that were carried over and are dead in
// the base.
func (p *prepared) replaceInput(c *lake.Change, m *lake.Moved, carried *roaring.Bitmap) error {
	f := p.t.byPath[m.From]
	var died *roaring.Bitmap // positions in m.To
	switch {
	case f == nil:
		died = m.All()
		carried.Or(died)
	case p.removed[f]: // by this change's Truncate
		died = m.All()
		carried.Or(m.Positions(orEmpty(f.dead)))
	default:
		p.remove(f)
		rows := roaring.Or(orEmpty(f.dead), orEmpty(c.Dead[m.From]))
		if left := roaring.AndNot(orEmpty(m.Dead), rows); !left.IsEmpty() {
			return fmt.Errorf("row %d of %s lives, and was not carried over: %w", left.Minimum(), m.From, lake.ErrRowsChanged)
		}
		died = m.Positions(rows)
		carried.Or(m.Positions(orEmpty(f.dead)))
		if !roaring.AndNot(orEmpty(c.Dead[m.From]), orEmpty(f.dead)).IsEmpty() {
			p.moves = false
		}
	}
	if back := roaring.AndNot(died, orEmpty(c.Dead[m.To])); !back.IsEmpty() {
		return fmt.Errorf("row %d of %s has died in %s, and would live again: %w", back.Minimum(), m.To, m.From, lake.ErrRowsChanged)
	}
	return nil
}

var noRows = roaring.New()

// orEmpty is rows, or a bitmap that must not be altered.
func orEmpty(rows *roaring.Bitmap) *roaring.Bitmap {
	if rows == nil {
		return noRows
	}
	return rows
}

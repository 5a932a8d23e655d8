package lake

// LayoutOf reads the Layout that a table's properties carry; nil for a table
// that Firn does not mirror.
func LayoutOf(properties map[string]string) (*Layout, error) {
	text, ok := properties[layoutProperty]
	if !ok {
		return nil, nil
	}
	return decodeLayout(text)
}

// KeyFields are the field ids of the columns that identify a row, in key
// order; none if rows have no key.
func (l *Layout) KeyFields() []int { return l.fields(l.key) }

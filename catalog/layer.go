package catalog

import (
	"cmp"
	"maps"
	"slices"
)

// layer is a map as a full entry has it, shared and never changed, under the
// changes made since: what a delta entry holds. A clone costs O(changes), not
// O(entries), so a thousand quiet tables cost nothing per epoch.
type layer[K cmp.Ordered, V any] struct {
	base map[K]V
	over map[K]change[V]
}

// change is a new value, or the tombstone of one that base has.
type change[V any] struct {
	value   V
	dropped bool
}

func (l *layer[K, V]) get(k K) (V, bool) {
	if c, ok := l.over[k]; ok {
		return c.value, !c.dropped
	}
	v, ok := l.base[k]
	return v, ok
}

func (l *layer[K, V]) put(k K, v V) {
	if l.over == nil {
		l.over = map[K]change[V]{}
	}
	l.over[k] = change[V]{value: v}
}

// drop reports whether k was there.
func (l *layer[K, V]) drop(k K) bool {
	_, there := l.get(k)
	if _, based := l.base[k]; !based {
		delete(l.over, k)
		return there
	}
	if l.over == nil {
		l.over = map[K]change[V]{}
	}
	l.over[k] = change[V]{dropped: true}
	return there
}

func (l *layer[K, V]) len() int {
	n := len(l.base)
	for k, c := range l.over {
		_, based := l.base[k]
		switch {
		case c.dropped:
			n--
		case !based:
			n++
		}
	}
	return n
}

// keys returns the keys of what is there, ascending.
func (l *layer[K, V]) keys() []K {
	out := make([]K, 0, len(l.base)+len(l.over))
	for k := range l.base {
		if _, changed := l.over[k]; !changed {
			out = append(out, k)
		}
	}
	for k, c := range l.over {
		if !c.dropped {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

func (l *layer[K, V]) equal(o *layer[K, V], same func(a, b V) bool) bool {
	return slices.EqualFunc(l.keys(), o.keys(), func(a, b K) bool {
		v, _ := l.get(a)
		w, _ := o.get(b)
		return a == b && same(v, w)
	})
}

// clone shares base and copies the changes.
func (l *layer[K, V]) clone() layer[K, V] {
	return layer[K, V]{base: l.base, over: maps.Clone(l.over)}
}

// merged is the same content as a base without changes.
func (l *layer[K, V]) merged() layer[K, V] {
	if len(l.over) == 0 {
		return layer[K, V]{base: l.base}
	}
	base := make(map[K]V, len(l.base)+len(l.over))
	maps.Copy(base, l.base)
	for k, c := range l.over {
		if c.dropped {
			delete(base, k)
		} else {
			base[k] = c.value
		}
	}
	return layer[K, V]{base: base}
}

// changed returns the keys of the new values and of the tombstones, ascending.
func (l *layer[K, V]) changed() (put, dropped []K) {
	for k, c := range l.over {
		if c.dropped {
			dropped = append(dropped, k)
		} else {
			put = append(put, k)
		}
	}
	slices.Sort(put)
	slices.Sort(dropped)
	return put, dropped
}

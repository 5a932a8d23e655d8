package slot

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"

	"firn/wal"
)

// typeCache holds pg_type rows by OID. A TypeInfo is composed from them anew,
// for the typmod differs from column to column.
type typeCache struct {
	mu   sync.Mutex
	rows map[uint32]typeRow
}

type typeRow struct {
	schema, name string
	kind         byte
	base         uint32 // of a domain
	baseMod      int32
	elem         uint32 // of a true array
	noSend       bool
}

// int2vector and oidvector are arrays to pg_type, but print without braces.
const (
	oidInt2Vector = 22
	oidOIDVector  = 30
)

// InvalidateTypes forgets what Type has cached: after ALTER TYPE, DOMAIN or a
// type of the same OID made anew.
func (s *Source) InvalidateTypes() {
	s.types.mu.Lock()
	s.types.rows = nil
	s.types.mu.Unlock()
}

// Type describes a type as pg_type has it now, with what lies beneath a domain
// or in an array. mod is the column's typmod, -1 for none. The answer is cached
// until InvalidateTypes; its Base and Elem are not to be changed.
func (s *Source) Type(ctx context.Context, oid uint32, mod int32) (wal.TypeInfo, error) {
	if err := s.loadTypes(ctx, []uint32{oid}); err != nil {
		return wal.TypeInfo{}, err
	}
	t, err := s.types.compose(oid, mod)
	if err != nil {
		return wal.TypeInfo{}, err
	}
	return *t, nil
}

// loadTypes fetches the types named and all they are made of.
func (s *Source) loadTypes(ctx context.Context, oids []uint32) error {
	if len(s.types.missing(oids)) == 0 {
		return nil
	}
	return s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
		for want := s.types.missing(oids); len(want) > 0; {
			got, err := fetchTypes(ctx, c, want)
			if err != nil {
				return fmt.Errorf("read types: %w", err)
			}
			want = s.types.missing(s.types.add(got))
		}
		return nil
	})
}

func fetchTypes(ctx context.Context, q interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}, oids []uint32) (map[uint32]typeRow, error) {
	rows, err := q.Query(ctx, `
		SELECT t.oid, n.nspname, t.typname, t.typtype, t.typbasetype, t.typtypmod,
		       CASE WHEN t.typcategory = 'A' AND t.typlen = -1 THEN t.typelem ELSE 0 END, t.typsend = 0
		FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
		WHERE t.oid = ANY($1::oid[])`, oids)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make(map[uint32]typeRow, len(oids))
	for rows.Next() {
		var oid uint32
		var r typeRow
		if err := rows.Scan(&oid, &r.schema, &r.name, &r.kind, &r.base, &r.baseMod, &r.elem, &r.noSend); err != nil {
			return nil, err
		}
		if oid == oidInt2Vector || oid == oidOIDVector || r.kind == 'd' {
			r.elem = 0
		}
		out[oid] = r
	}
	return out, rows.Err()
}

func (tc *typeCache) missing(oids []uint32) []uint32 {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	var out []uint32
	seen := make(map[uint32]bool)
	for _, o := range oids {
		if _, ok := tc.rows[o]; !ok && !seen[o] {
			seen[o] = true
			out = append(out, o)
		}
	}
	return out
}

// add stores rows and returns the OIDs these refer to.
func (tc *typeCache) add(rows map[uint32]typeRow) []uint32 {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	if tc.rows == nil {
		tc.rows = make(map[uint32]typeRow)
	}
	var refs []uint32
	for oid, r := range rows {
		tc.rows[oid] = r
		if r.base != 0 {
			refs = append(refs, r.base)
		}
		if r.elem != 0 {
			refs = append(refs, r.elem)
		}
	}
	return refs
}

func (tc *typeCache) compose(oid uint32, mod int32) (*wal.TypeInfo, error) {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	return tc.composeLocked(oid, mod, 0)
}

const maxTypeDepth = 64

func (tc *typeCache) composeLocked(oid uint32, mod int32, depth int) (*wal.TypeInfo, error) {
	r, ok := tc.rows[oid]
	if !ok {
		return nil, fmt.Errorf("describe type %d: it does not exist", oid)
	}
	if depth > maxTypeDepth {
		return nil, fmt.Errorf("describe type %s: nested more than %d deep", r.name, maxTypeDepth)
	}
	t := &wal.TypeInfo{OID: oid, Mod: mod, Schema: r.schema, Name: r.name, Kind: r.kind, NoSend: r.noSend}
	var err error
	if r.kind == 'd' {
		if t.Mod < 0 {
			t.Mod = r.baseMod
		}
		if t.Base, err = tc.composeLocked(r.base, t.Mod, depth+1); err != nil {
			return nil, err
		}
	}
	if r.elem != 0 {
		// A typmod on an array is its elements'.
		if t.Elem, err = tc.composeLocked(r.elem, mod, depth+1); err != nil {
			return nil, err
		}
	}
	return t, nil
}

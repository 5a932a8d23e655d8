package wire_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake"
	"firn/wal"
)

// happening is what comes to a table while its files are rewritten.
type happening struct {
	name     string
	identity string // of the table; see whatHappens
	sql      string // $T is the table
	ddl      bool   // seen by a look at the catalogs, perhaps, and not in the stream
	dropped  bool
}

const (
	byKey  = "primary key"
	byRow  = "replica identity full"
	byNone = "append mode"
)

var happenings = []happening{
	{name: "updates of every row", identity: byKey, sql: "update $T set v = 'u'"},
	{name: "keys that move", identity: byKey, sql: "update $T set id = id + 1000 where id % 2 = 0; insert into $T select i, 'n', 0 from generate_series(2, 40, 2) i"},
	{name: "deletes of every row", identity: byKey, sql: "delete from $T"},
	{name: "truncate", identity: byKey, sql: "truncate $T"},
	{name: "truncate and the same keys", identity: byKey, sql: "truncate $T; insert into $T select i, 'again', 1 from generate_series(1, 90) i; delete from $T where id < 5"},
	{name: "a column more", identity: byKey, ddl: true, sql: "alter table $T add w text; update $T set w = 'w' where id % 3 = 0; insert into $T values (500, 'v', 1, 'w')"},
	{name: "a column less", identity: byKey, ddl: true, sql: "alter table $T drop n; update $T set v = 'd' where id % 3 = 0"},
	{name: "a column less and again", identity: byKey, ddl: true, sql: "alter table $T drop n; insert into $T values (501, 'v'); alter table $T add n int; update $T set n = 8 where id % 2 = 0"},
	{name: "a wider column", identity: byKey, ddl: true, sql: "alter table $T alter n type bigint; insert into $T values (502, 'v', 5000000000)"},
	{name: "a column of another type", identity: byKey, ddl: true, sql: "alter table $T alter n type text using 'n' || n; insert into $T values (503, 'v', 't')"},
	{name: "dropped", identity: byKey, dropped: true, sql: "drop table $T"},
	{name: "dropped and made anew", identity: byKey, ddl: true, sql: "drop table $T; create table $T (id int primary key, z text); insert into $T values (1, 'reborn')"},
	{name: "updates of some", identity: byRow, sql: "update $T set v = 'u' where id % 5 = 0; insert into $T select 3, 'v', 0 from generate_series(1, 9); delete from $T where ctid in (select ctid from $T where id = 3 limit 5)"},
	{name: "deletes of every row", identity: byRow, sql: "delete from $T"},
	{name: "truncate and the same rows", identity: byRow, sql: "truncate $T; insert into $T values (1, 'v', 0), (1, 'v', 0)"},
	{name: "a column more", identity: byRow, ddl: true, sql: "alter table $T add w text; insert into $T values (500, 'v', 1, 'w'); delete from $T where id % 3 = 0"},
	{name: "a column less", identity: byRow, ddl: true, sql: "alter table $T drop n; delete from $T where id % 3 = 0; insert into $T values (501, 'v')"},
	{name: "inserts", identity: byNone, sql: "insert into $T select i, 'n', 0 from generate_series(1, 40, 2) i"},
	{name: "truncate", identity: byNone, sql: "truncate $T; insert into $T values (1, 'v', 0), (1, 'v', 0)"},
	{name: "a column more", identity: byNone, ddl: true, sql: "alter table $T add w text; insert into $T values (500, 'v', 1, 'w')"},
	{name: "dropped", identity: byNone, dropped: true, sql: "drop table $T"},
}

// Each kind of table is rewritten while each kind of thing happens to it: before
// the rewrite has read a byte, or when all is written and not installed. What was
// rewritten is then installed, or of no use any more, and every row is what
// Postgres has. The inputs are of several schemas.
func TestRule21WhatHappensMeanwhile(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			t.Parallel()
			whatHappens(t, version)
		})
	}
}

func whatHappens(t *testing.T, version int) {
	r := newRig(t)
	r.o.Freshness, r.o.Poll = 20*time.Millisecond, 100*time.Millisecond
	r.o.FormatVersion = func(lake.Ident) int { return version }
	r.o.Append = func(n wal.TableName) bool { return strings.HasPrefix(n.Name, "heap") }
	var point atomic.Pointer[string]
	there, goOn := make(chan struct{}), make(chan struct{})
	r.o.Fail = func(at string) {
		if p := point.Load(); p != nil && *p == at && point.CompareAndSwap(p, nil) {
			there <- struct{}{}
			<-goOn
		}
	}
	tables := make([]string, len(happenings))
	for i, x := range happenings {
		tables[i] = fmt.Sprintf("t%d", i)
		columns := "id int, v text"
		switch x.identity {
		case byKey:
			columns = "id int primary key, v text"
		case byNone:
			tables[i] = fmt.Sprintf("heap%d", i)
		}
		r.exec(fmt.Sprintf("create table %s (%s)", tables[i], columns))
		if x.identity == byRow {
			r.exec(fmt.Sprintf("alter table %s replica identity full", tables[i]))
		}
	}
	e, stop := r.run()
	for i, x := range happenings {
		name, table := fmt.Sprintf("%s, %s, %s", tables[i], x.identity, x.name), "public."+tables[i]
		do := func(sql string) { r.exec(strings.ReplaceAll(sql, "$T", tables[i])) }
		do("insert into $T select i, 'old' from generate_series(1, 30) i")
		r.same(e, table)
		do("alter table $T add n int; insert into $T select i, 'v', 0 from generate_series(31, 60) i")
		r.same(e, table)
		do("insert into $T select i, 'v', 0 from generate_series(61, 90) i")
		if x.identity != byNone {
			do("delete from $T where id % 13 = 5; update $T set v = 'x' where id % 17 = 3")
		}
		r.same(e, table)
		before := e.Lake.Counters().Rewrites.Load()
		at := []string{"in-rewrite", "after-rewrite"}[(i+version)%2]
		point.Store(&at)
		asked, err := e.Lake.Compact(t.Context(), []string{table})
		require.NoError(t, err, name)
		require.NotEmpty(t, asked.Rewrites, name)
		<-there
		do(x.sql)
		if x.ddl || x.dropped {
			r.settled(e)
		}
		if !x.dropped {
			r.same(e, table)
		}
		goOn <- struct{}{}
		if x.dropped {
			continue
		}
		time.Sleep(100 * time.Millisecond) // it is installed, or not
		do("insert into $T (id) values (777), (778)")
		if x.identity != byNone {
			do("delete from $T where id in (777, 31, 32, 1002, 1004, 500)")
		}
		r.same(e, table)
		t.Logf("%s at %s: %d rewrites", name, at, e.Lake.Counters().Rewrites.Load()-before)
	}
	c := e.Lake.Counters()
	require.Zero(t, c.Errors.Load()+c.Restarts.Load())
	require.NoError(t, stop())
}

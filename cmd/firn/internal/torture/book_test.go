package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"firn/lake/laketest"
)

// book is a writer whose transactions follow from a seed, one after the other,
// in tables that nobody else writes to. Each writes its number into book.page as
// well, so whatever epoch is looked at tells by itself which of them it holds,
// and what the tables held after each can be worked out: the ledger by which
// every kept epoch is judged, exactly.
type book struct {
	url     string
	seed    uint64
	written atomic.Int64 // the number of the last one that has committed
}

// The tables besides book.page: with a key, and without.
var (
	bookKeyed  = []string{"book.keyed", "book.vector", "book.split", "book.shift"}
	bookBags   = []string{"book.whole", "book.bag", "book.heap"}
	bookTables = slices.Concat(bookKeyed, bookBags)
)

const bookSetup = `
create schema book;
create table book.page (only_one int primary key, n bigint);
insert into book.page values (1, 0);
create table book.keyed (id bigint primary key, v text, n int);
create table book.vector (id bigint primary key, v text, n int);
create table book.split (id bigint primary key, v text, n int);
create table book.shift (id bigint primary key, v text, n int);
create table book.whole (a int, b text); alter table book.whole replica identity full;
create table book.bag (a int, b text); alter table book.bag replica identity full;
create table book.heap (a int, b text);
`

// An update of v or a, and one of the key, moves a row to another partition.
const bookConfig = `
  book.vector: {format_version: 3}
  book.split: {partition_by: 'bucket(4, id), truncate(1, v)'}
  book.shift: {format_version: 3, partition_by: 'truncate(1, v)', sort_by: 'n desc, id'}
  book.whole: {sort_by: 'b nulls first, a desc'}
  book.bag: {format_version: 3, partition_by: a}
  book.heap: {format_version: 3, mode: append}
`

// bookLayouts are how many fields those are partitioned and sorted by.
var bookLayouts = map[string][2]int{"book.split": {2, 0}, "book.shift": {1, 2}, "book.whole": {0, 2}, "book.bag": {1, 0}, "book.keyed": {0, 0}}

func (b *book) setup(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, bookSetup)
	return err
}

// run writes until ctx ends.
func (b *book) run(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, b.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "set log_min_messages = fatal"); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(b.seed, 3))
	for ctx.Err() == nil {
		n := b.written.Load() + 1
		// What comes to nothing, now and then.
		for _, keep := range []bool{rng.IntN(8) > 0, true} {
			if err := b.write(context.WithoutCancel(ctx), conn, n, keep); err != nil {
				return fmt.Errorf("write page %d of the book: %w", n, err)
			}
			if keep {
				break
			}
		}
		b.written.Store(n)
		time.Sleep(time.Duration(rng.IntN(16)) * time.Millisecond)
	}
	return nil
}

func (b *book) write(ctx context.Context, conn *pgx.Conn, n int64, keep bool) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	for _, s := range b.page(n) {
		if _, err := tx.Exec(ctx, s.sql); err != nil {
			return fmt.Errorf("%s: %w", s.sql, err)
		}
	}
	if _, err := tx.Exec(ctx, fmt.Sprintf("update book.page set n = %d", n)); err != nil {
		return err
	}
	if !keep {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

// bookRests is how many pages are about one table only: the others rest, long
// enough for somebody else's rewrite of them to land.
const bookRests = 96

// statement is SQL, and what it does to the tables.
type statement struct {
	sql string
	do  func(*shelf)
}

// shelf is what the tables hold.
type shelf struct {
	keyed map[string]map[int64]string // by table and id: the rest of the row, joined
	bags  map[string]map[string]int   // by table and row, joined
}

func newShelf() *shelf {
	s := &shelf{keyed: map[string]map[int64]string{}, bags: map[string]map[string]int{}}
	for _, name := range bookKeyed {
		s.keyed[name] = map[int64]string{}
	}
	for _, name := range bookBags {
		s.bags[name] = map[string]int{}
	}
	return s
}

// rows are those of a table.
func (s *shelf) rows(table string) laketest.Multiset {
	if rows, ok := s.keyed[table]; ok {
		out := make([][]string, 0, len(rows))
		for id, rest := range rows {
			v, n := split(rest)
			out = append(out, []string{strconv.FormatInt(id, 10), v, n})
		}
		return laketest.Rows([]string{"id", "v", "n"}, out)
	}
	var out [][]string
	for row, n := range s.bags[table] {
		a, b := split(row)
		for range n {
			out = append(out, []string{a, b})
		}
	}
	return laketest.Rows([]string{"a", "b"}, out)
}

const between = "\x1f"

func split(joined string) (a, b string) {
	for i := range joined {
		if joined[i] == between[0] {
			return joined[:i], joined[i+1:]
		}
	}
	return joined, ""
}

// page is what transaction n does.
func (b *book) page(n int64) (all []statement) {
	chapter := rand.New(rand.NewPCG(b.seed, uint64(n/bookRests)<<20))
	table := bookTables[chapter.IntN(len(bookTables))]
	rng := rand.New(rand.NewPCG(b.seed, uint64(n)<<20+1))
	for i := range 1 + rng.IntN(pageStepsMax) {
		if slices.Contains(bookKeyed, table) {
			all = append(all, keyedStep(rng, table, n, i))
		} else {
			all = append(all, bagStep(rng, table))
		}
	}
	return all
}

const (
	bookIDs      = 600
	pageStepsMax = 4
)

func keyedStep(rng *rand.Rand, table string, n int64, step int) statement {
	text := func(kind string) string { return fmt.Sprintf("%s%d", kind, n) }
	row := func(v string) string { return v + between + strconv.FormatInt(n, 10) }
	switch k := rng.IntN(200); {
	case k == 0:
		return statement{"truncate " + table, func(s *shelf) { clear(s.keyed[table]) }}
	case k < 80:
		from := rng.Int64N(bookIDs)
		to := from + rng.Int64N(40)
		return statement{fmt.Sprintf("insert into %s select i, '%s', %d from generate_series(%d, %d) i on conflict (id) do update set v = '%s', n = excluded.n",
			table, text("new"), n, from, to, text("again")),
			func(s *shelf) {
				for id := from; id <= to; id++ {
					v := text("new")
					if _, ok := s.keyed[table][id]; ok {
						v = text("again")
					}
					s.keyed[table][id] = row(v)
				}
			}}
	case k < 150:
		m := 7 + rng.Int64N(60)
		r := rng.Int64N(m)
		v, literal := text("set"), "'"+text("set")+"'"
		if n%4 == 0 {
			v, literal = laketest.Null, "null"
		}
		return statement{fmt.Sprintf("update %s set v = %s, n = %d where id %% %d = %d", table, literal, n, m, r), func(s *shelf) {
			for id := range s.keyed[table] {
				if id%m == r {
					s.keyed[table][id] = row(v)
				}
			}
		}}
	case k < 185:
		m := 5 + rng.Int64N(40)
		r := rng.Int64N(m)
		return statement{fmt.Sprintf("delete from %s where id %% %d = %d", table, m, r), func(s *shelf) {
			for id := range s.keyed[table] {
				if id%m == r {
					delete(s.keyed[table], id)
				}
			}
		}}
	default: // keys that move
		from := rng.Int64N(bookIDs)
		to, by := from+rng.Int64N(10), (n*pageStepsMax+int64(step))*1000 // nobody's yet
		return statement{fmt.Sprintf("update %s set id = id + %d where id between %d and %d", table, by, from, to), func(s *shelf) {
			for id := from; id <= to; id++ {
				if rest, ok := s.keyed[table][id]; ok {
					delete(s.keyed[table], id)
					s.keyed[table][id+by] = rest
				}
			}
		}}
	}
}

func bagStep(rng *rand.Rand, table string) statement {
	a, b := rng.IntN(8), "xyz"[rng.IntN(3):][:1]
	k := 1 + rng.IntN(5)
	row := fmt.Sprint(a, between, b)
	some := fmt.Sprintf("ctid in (select ctid from %s where a = %d and b = '%s' limit %d)", table, a, b, k)
	switch what := rng.IntN(100); {
	case what == 0:
		return statement{"truncate " + table, func(s *shelf) { clear(s.bags[table]) }}
	case what < 50 || table == "book.heap":
		return statement{fmt.Sprintf("insert into %s select %d, '%s' from generate_series(1, %d)", table, a, b, 3*k),
			func(s *shelf) { s.bags[table][row] += 3 * k }}
	case what < 75:
		return statement{fmt.Sprintf("delete from %s where %s", table, some), func(s *shelf) {
			s.bags[table][row] -= min(k, s.bags[table][row])
		}}
	default:
		to := fmt.Sprint(a+1, between, b)
		return statement{fmt.Sprintf("update %s set a = a + 1 where %s", table, some), func(s *shelf) {
			moved := min(k, s.bags[table][row])
			s.bags[table][row] -= moved
			s.bags[table][to] += moved
		}}
	}
}

// turner turns the book's pages one by one.
type turner struct {
	b    *book
	n    int64
	held *shelf
}

func (b *book) open() *turner { return &turner{b: b, held: newShelf()} }

// to goes on to the state after transaction n, which is not before the last one
// asked for.
func (t *turner) to(n int64) *shelf {
	for t.n < n {
		t.n++
		for _, s := range t.b.page(t.n) {
			s.do(t.held)
		}
	}
	return t.held
}

package wire_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
)

// TestMirrorManyTables follows two hundred tables at once.
func TestMirrorManyTables(t *testing.T) {
	t.Parallel()
	laketest.Short(t, "two hundred tables take a while")
	const tables = 200
	r := newRig(t)
	r.o.Freshness = time.Second
	for i := range tables {
		r.exec(fmt.Sprintf("create table t%03d (id int primary key, v text); insert into t%03d values (1, 'a'), (2, 'b')", i, i))
	}
	began := time.Now()
	e, stop := r.run()
	r.caughtUp(e)
	t.Logf("loaded in %v", time.Since(began))
	began = time.Now()
	for i := range tables {
		r.exec(fmt.Sprintf("update t%03d set v = v || 'x'; insert into t%03d values (3, 'c'); delete from t%03d where id = 1", i, i, i))
	}
	r.caughtUp(e)
	t.Logf("changed and followed in %v, %d epochs", time.Since(began), e.Lake.Counters().Epochs.Load())
	for _, i := range []int{0, 77, tables - 1} {
		r.same(e, fmt.Sprintf("public.t%03d", i))
	}
	require.NoError(t, stop())
	began = time.Now()
	e, stop = r.run()
	r.caughtUp(e)
	t.Logf("restarted in %v", time.Since(began))
	r.exec("update t005 set v = 'again'")
	r.same(e, "public.t005", "public.t006")
	require.NoError(t, stop())
}

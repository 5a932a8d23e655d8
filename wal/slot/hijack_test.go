package slot

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// slowConn takes its time with what has marker in it, as a busy machine may.
type slowConn struct {
	net.Conn
	marker string
}

func (c *slowConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if bytes.Contains(p, []byte(c.marker)) {
		time.Sleep(100 * time.Millisecond)
	}
	return n, err
}

// TestCopyAfterASlowWrite: pgconn answers a slow write by reading in the
// background. What it read of the COPY was lost, and the rest waited for ever.
func TestCopyAfterASlowWrite(t *testing.T) {
	url, c := newDatabase(t, sharedServer(t))
	mustExec(t, c, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10000)")
	s := open(t, url)
	x := describe(t, s, "public.t")
	sn, err := s.CreateSlot(t.Context(), s.o.Slot+"_tmp", true, names("public.t"), LockOptions{})
	require.NoError(t, err)
	defer sn.Close()
	dial := s.cfg.DialFunc
	s.cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &slowConn{conn, "pg_relation_size"}, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rows := 0
	cp := copier(t, s, sn, x, 1)
	defer cp.Close()
	require.NoError(t, cp.Copy(ctx, []CopyColumn{{Name: "id"}}, CTIDRange{}, func([][]byte) error { rows++; return nil }))
	require.Equal(t, 10000, rows)
}

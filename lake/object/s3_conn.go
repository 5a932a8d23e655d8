package object

import (
	"context"
	"net"
	"time"
)

// stallLimit is how long a connection may move no byte while one is due: the
// answer to a request, the rest of a body, or room for more of ours. Neither
// HTTP nor TCP has such a limit: a firewall that forgets a connection leaves
// an upload waiting for a quarter of an hour, a proxy that hangs for ever. An
// idle connection is closed by it, too.
var stallLimit = answerTimeout

// liveConn fails a read or write that makes no progress.
type liveConn struct {
	net.Conn
	limit time.Duration
}

func dialLive(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	limit := stallLimit
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &liveConn{c, limit}, nil
	}
}

func (c *liveConn) Read(p []byte) (int, error) {
	if err := c.Conn.SetReadDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write moves the deadline of a read under way as well: the answer is due only
// once the request is out.
func (c *liveConn) Write(p []byte) (int, error) {
	if err := c.Conn.SetDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

package slot

import (
	"net"
	"sync/atomic"
	"time"
)

const (
	lazyReceiveBytes = 64 << 10  // SO_RCVBUF
	lazyBufferBytes  = 256 << 10 // what one read may take
	lazySmallBytes   = 32 << 10  // a read under this is followed by a pause
	lazyPause        = 10 * time.Millisecond
)

// lazyConn reads a socket as rarely as it can. The walsender makes one small
// send() per message; drained eagerly, each wakes the reader, and two thirds of
// both sides' CPU is the kernel's. Left alone for a while behind a small receive
// window, the kernel coalesces them: 2.5 times the rows for a tenth of the
// client's CPU (on a loopback). The limits are tuned together and near a cliff:
// 16 KB with 20 ms gives 4k rows/s, 1-3 ms a quarter of the gain.
//
// The pause counts from the end of the small read before it, so what arrives
// after a quiet time is read at once: no latency is added to an idle stream.
//
// It must lie below TLS. Only one goroutine may read.
type lazyConn struct {
	net.Conn
	lazy atomic.Bool // until set, reads pass through

	buf       []byte
	r, w      int
	pauseFrom time.Time // zero: the last read was large
}

func newLazyConn(c net.Conn) (*lazyConn, error) {
	if t, ok := c.(*net.TCPConn); ok {
		if err := t.SetReadBuffer(lazyReceiveBytes); err != nil {
			return nil, err
		}
	}
	return &lazyConn{Conn: c}, nil
}

// Read serves what is buffered, or waits and reads the socket once.
func (c *lazyConn) Read(p []byte) (int, error) {
	if c.r < c.w {
		n := copy(p, c.buf[c.r:c.w])
		c.r += n
		return n, nil
	}
	if !c.lazy.Load() {
		return c.Conn.Read(p)
	}
	if !c.pauseFrom.IsZero() {
		if d := lazyPause - time.Since(c.pauseFrom); d > 0 {
			time.Sleep(d)
		}
	}
	direct := len(p) >= lazyBufferBytes/2
	dst := p
	if !direct {
		if c.buf == nil {
			c.buf = make([]byte, lazyBufferBytes)
		}
		dst = c.buf
	}
	n, err := c.Conn.Read(dst)
	if n >= lazySmallBytes {
		c.pauseFrom = time.Time{}
	} else {
		c.pauseFrom = time.Now()
	}
	if direct {
		return n, err
	}
	c.r, c.w = 0, n
	if n == 0 {
		return 0, err
	}
	// An error comes again at the next read of the socket.
	c.r = copy(p, c.buf[:n])
	return c.r, nil
}

// buffered says whether the next Read returns without touching the socket.
func (c *lazyConn) buffered() bool { return c.r < c.w }

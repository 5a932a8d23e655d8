package slot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	frameHeader = 5       // type byte, length that counts itself
	frameMax    = 1 << 30 // Postgres' own limit for a message
)

// frameSize reads a frame's header: its whole size with the header.
func frameSize(b []byte) (int, error) {
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > frameMax {
		return 0, fmt.Errorf("read frame %q: length %d", b[0], n)
	}
	return int(n) + 1, nil
}

// frameReader cuts a connection's bytes into protocol frames.
type frameReader struct {
	r    io.Reader
	buf  []byte
	i, n int // buf[i:n] is not yet consumed
}

// next returns a frame's type and body, valid until the call after it.
func (f *frameReader) next() (byte, []byte, error) {
	for {
		if have := f.buf[f.i:f.n]; len(have) >= frameHeader {
			size, err := frameSize(have)
			if err != nil {
				return 0, nil, err
			}
			if len(have) >= size {
				f.i += size
				return have[0], have[frameHeader:size], nil
			}
			if size > len(f.buf) {
				grown := make([]byte, size+len(f.buf))
				f.n = copy(grown, have)
				f.i, f.buf = 0, grown
			}
		}
		if f.i > 0 {
			f.n = copy(f.buf, f.buf[f.i:f.n])
			f.i = 0
		}
		n, err := f.r.Read(f.buf[f.n:])
		f.n += n
		if n == 0 && err != nil {
			return 0, nil, unexpectedEOF(err)
		}
	}
}

func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// wire is a connection taken over from pgconn right after the login.
type wire struct {
	net.Conn
	lazy   *lazyConn // nil: eager
	pid    uint32
	frames frameReader
}

const wireBuffer = 256 << 10

// hijack takes over c, which it closes if it fails. After a write that took
// long, which on a busy machine any may, pgconn reads in the background until
// the next answer: that one must not be ours.
func hijack(ctx context.Context, c *pgconn.PgConn, lazy *lazyConn) (*wire, error) {
	if err := c.SyncConn(ctx); err != nil {
		closePgConn(c)
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	h, err := c.Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over connection: %w", err)
	}
	if n := h.Frontend.ReadBufferLen(); n > 0 {
		return nil, errors.Join(fmt.Errorf("take over connection: %d bytes were read ahead", n), h.Conn.Close())
	}
	return &wire{Conn: h.Conn, lazy: lazy, pid: h.PID, frames: frameReader{r: h.Conn, buf: make([]byte, wireBuffer)}}, nil
}

// send writes a simple query.
func (w *wire) send(sql string) error {
	b := make([]byte, 0, frameHeader+len(sql)+1)
	b = append(b, 'Q')
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(sql)+1))
	b = append(b, sql...)
	b = append(b, 0)
	_, err := w.Write(b)
	return err
}

// terminate says goodbye and closes.
func (w *wire) terminate() {
	// The connection is gone whatever these return.
	_, _ = w.Write([]byte{'X', 0, 0, 0, 4})
	_ = w.Close()
}

// serverError decodes the body of an ErrorResponse.
func serverError(body []byte) error {
	var m pgproto3.ErrorResponse
	if err := m.Decode(body); err != nil {
		return fmt.Errorf("decode the server's error: %w", err)
	}
	return pgconn.ErrorResponseToPgError(&m)
}

// preload puts bytes that were read before in front.
func (f *frameReader) preload(b []byte) {
	if len(b) > len(f.buf) {
		f.buf = make([]byte, 2*len(b))
	}
	f.i, f.n = 0, copy(f.buf, b)
}

package slot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"firn/wal"
)

// reader fills a stream's batches: whole CopyData frames, as they come. It looks
// at each frame's header for its length, position and a keepalive's question,
// and at nothing else.
type reader struct {
	st     *Stream
	carry  []byte // the beginning of a frame whose end hasn't come
	failed bool   // the connection itself broke
}

func (r *reader) run(ctx context.Context) error {
	st := r.st
	// What came with the answer to START_REPLICATION.
	r.carry = append(r.carry, st.w.frames.buf[st.w.frames.i:st.w.frames.n]...)
	for {
		buf, err := r.buffer(ctx)
		if err != nil {
			return err
		}
		n, whole, err := r.fill(ctx, buf)
		r.deliver(n, whole)
		if err != nil {
			if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				return ctx.Err()
			}
			r.failed = true
			return err
		}
	}
}

// buffer waits for a free buffer. One that had to grow for a huge row is let go.
func (r *reader) buffer(ctx context.Context) ([]byte, error) {
	select {
	case b := <-r.st.free:
		if cap(b) != batchBytes {
			b = make([]byte, batchBytes)
		}
		return b[:batchBytes], nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fill reads until there is at least one whole frame and no more can be had
// without waiting, or the buffer is full. It returns the buffer, which may have
// been replaced by a larger one, and how much of it is whole frames; the rest is
// in carry.
func (r *reader) fill(ctx context.Context, buf []byte) ([]byte, int, error) {
	n := len(r.carry)
	if n > len(buf) {
		buf = make([]byte, n+batchBytes)
	}
	copy(buf, r.carry)
	r.carry = r.carry[:0]
	whole := 0
	for {
		next, special, err := r.scan(buf[:n], whole)
		whole = next
		if err == nil && special > 0 {
			// A frame that is no CopyData: a batch ends before it.
			err = r.special(buf[whole : whole+special])
			if err == nil && whole == 0 {
				n = copy(buf, buf[special:n])
				continue
			}
			r.keep(buf[min(whole+special, n):n])
			return buf, whole, err
		}
		if err != nil {
			r.keep(buf[whole:n])
			return buf, whole, err
		}
		if whole > 0 && (len(buf)-n < lazySmallBytes || !r.st.w.lazy.buffered()) {
			r.keep(buf[whole:n])
			return buf, whole, nil
		}
		if buf, err = grow(buf, n); err != nil {
			return buf, whole, err
		}
		r.st.waiting.Store(time.Now().UnixNano())
		got, err := r.st.w.Read(buf[n:])
		r.st.waiting.Store(0)
		n += got
		if got == 0 && err != nil {
			r.keep(buf[whole:n])
			return buf, whole, unexpectedEOF(err)
		}
	}
}

// keep holds back what is not whole.
func (r *reader) keep(b []byte) {
	r.carry = append(r.carry[:0], b...)
	if cap(r.carry) > 4*batchBytes && len(r.carry) < batchBytes {
		r.carry = append([]byte(nil), r.carry...)
	}
}

// grow makes room behind n for the rest of a frame larger than the buffer.
// buf[:n] holds no whole frame then.
func grow(buf []byte, n int) ([]byte, error) {
	if n < len(buf) {
		return buf, nil
	}
	size, err := frameSize(buf)
	if err != nil {
		return buf, err
	}
	bigger := make([]byte, size+batchBytes)
	copy(bigger, buf[:n])
	return bigger, nil
}

// scan goes over the whole frames from off and takes note of positions. It
// returns where they end, or stop at one that is no CopyData, with its size.
func (r *reader) scan(b []byte, off int) (end, special int, err error) {
	st := r.st
	received := st.received.Load()
	asked := false
	for len(b)-off >= frameHeader {
		size, err := frameSize(b[off:])
		if err != nil {
			return off, 0, err
		}
		if len(b)-off < size {
			break
		}
		f := b[off : off+size]
		if f[0] != 'd' {
			special = size
			break
		}
		switch p := f[frameHeader:]; {
		case len(p) >= 25 && p[0] == 'w':
			// A Relation or Type has position 0/0, and streamed changes run
			// back: the highest counts.
			received = max(received, binary.BigEndian.Uint64(p[1:]))
		case len(p) == 18 && p[0] == 'k':
			received = max(received, binary.BigEndian.Uint64(p[1:]))
			asked = asked || p[17] == 1
		default:
			return off, 0, fmt.Errorf("read replication stream: unknown message of %d bytes", len(p))
		}
		off += size
	}
	st.received.Store(received)
	if asked {
		st.asked.Add(1)
		st.wake()
	}
	return off, special, nil
}

// special handles a frame outside the COPY.
func (r *reader) special(f []byte) error {
	switch f[0] {
	case 'N', 'S', 'A':
		return nil
	case 'E':
		r.failed = true
		return serverError(f[frameHeader:])
	case 'c', 'C', 'Z':
		r.failed = true
		return fmt.Errorf("%w: it has ended the stream", ErrShutdown)
	}
	return fmt.Errorf("read replication stream: unexpected message %q", f[0])
}

// deliver hands the frames over, or takes the buffer back if there are none.
// Neither channel can be full: there are as many places as buffers.
func (r *reader) deliver(buf []byte, whole int) {
	if whole == 0 {
		r.st.free <- buf
		return
	}
	r.st.batches <- wal.NewBatch(buf[:whole], r.release)
}

func (r *reader) release(b []byte) { r.st.free <- b[:cap(b)] }

package wal

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Message is one message of the replication stream.
type Message struct {
	WALStart, WALEnd LSN
	Time             time.Time // of the server, when it sent this
	Data             []byte    // pgoutput's payload, within the batch's buffer; nil: a keepalive
	Reply            bool      // the keepalive asks for an answer
}

// Batch is a run of whole CopyData messages as they came from the socket.
type Batch struct {
	buf     []byte
	free    func([]byte)
	pending []byte
}

// NewBatch wraps buf, which holds whole CopyData frames and is given to free
// by Release.
func NewBatch(buf []byte, free func([]byte)) *Batch {
	return &Batch{buf: buf, free: free, pending: buf}
}

// Next returns the next message; false at the end. Its Data is valid until
// Release.
func (b *Batch) Next() (Message, bool, error) {
	if len(b.pending) == 0 {
		return Message{}, false, nil
	}
	if len(b.pending) < 6 || b.pending[0] != 'd' {
		return Message{}, false, fmt.Errorf("read replication stream: frame %q is no CopyData", b.pending[0])
	}
	n := int(binary.BigEndian.Uint32(b.pending[1:]))
	if n < 5 || n+1 > len(b.pending) {
		return Message{}, false, fmt.Errorf("read replication stream: frame of %d bytes in %d", n, len(b.pending))
	}
	p := b.pending[5 : n+1]
	b.pending = b.pending[n+1:]
	switch {
	case p[0] == 'w' && len(p) >= 25:
		return Message{
			WALStart: LSN(binary.BigEndian.Uint64(p[1:])), WALEnd: LSN(binary.BigEndian.Uint64(p[9:])),
			Time: Clock(int64(binary.BigEndian.Uint64(p[17:]))), Data: p[25:],
		}, true, nil
	case p[0] == 'k' && len(p) == 18:
		end := LSN(binary.BigEndian.Uint64(p[1:]))
		return Message{WALStart: end, WALEnd: end, Time: Clock(int64(binary.BigEndian.Uint64(p[9:]))), Reply: p[17] == 1}, true, nil
	}
	return Message{}, false, fmt.Errorf("read replication stream: message %q of %d bytes is unknown", p[0], len(p))
}

// Release gives the buffer back. The batch and its messages are invalid then.
func (b *Batch) Release() {
	if b.free != nil {
		b.free(b.buf)
		b.free = nil
	}
}

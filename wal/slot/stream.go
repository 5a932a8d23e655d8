package slot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"firn/wal"
)

// StreamOptions choose what the stream carries.
type StreamOptions struct {
	Streaming bool // transactions in progress are sent before they commit
	Messages  bool // pg_logical_emit_message's
}

// Stream is the slot's changes, as pgoutput sends them in its text form.
//
// Four goroutines live while Run does. The reader fills batches; when the
// consumer holds them all it stops reading, the socket's window closes and
// Postgres waits: nothing piles up here. The second answers: it alone writes to
// the connection, so the walsender hears from us although nobody reads, and
// wal_sender_timeout doesn't strike. The third sits on an ordinary connection
// only to be told of a shutdown. A walsender doesn't stop before its client has
// confirmed all WAL, and asks for that as often as it gets an answer; without
// the watch, `pg_ctl stop -m fast` would hang for as long as we run. The fourth
// notices a connection that died in silence.
//
// The alternative, a queue in memory between an eager reader and the consumer,
// would cost more CPU (see lazyConn) and have to be bounded anyway.
type Stream struct {
	s       *Source
	w       *wire
	timeout time.Duration // wal_sender_timeout; 0: off

	batches chan *wal.Batch
	free    chan []byte
	poke    chan struct{} // wakes the answering goroutine

	acked    atomic.Uint64
	received atomic.Uint64
	asked    atomic.Int64 // replies asked for and not yet given
	ping     atomic.Bool  // the next status asks for a keepalive
	waiting  atomic.Int64 // since when the reader waits for a byte, in Unix nanoseconds; 0: it doesn't
}

const (
	batchBytes   = 256 << 10
	answerGap    = 100 * time.Millisecond // at most ten answers a second
	stuckLimit   = 10 * time.Second
	writeTimeout = 30 * time.Second
	finishLimit  = 2 * time.Second
)

// StartStream starts the slot's stream at start, which must be durable with the
// caller: all before it is acknowledged at once. A slot in use is waited for
// (Options.SlotWait) without disturbing its user. Run must be called next, or
// Close.
//
// Errors: ErrSlotInUse, ErrSlotMissing, ErrSlotLost, ErrSlotUnfit,
// ErrPublicationMissing, and those of connecting.
func (s *Source) StartStream(ctx context.Context, start wal.LSN, o StreamOptions) (*Stream, error) {
	st, err := s.startStream(ctx, start, o)
	if err != nil {
		return nil, fmt.Errorf("start replication: %w", err)
	}
	return st, nil
}

func (s *Source) startStream(ctx context.Context, start wal.LSN, o StreamOptions) (*Stream, error) {
	names, err := s.streamed(ctx)
	if err != nil {
		return nil, err
	}
	var timeout string
	if err := s.one(ctx, `SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'`, nil, &timeout); err != nil {
		return nil, fmt.Errorf("read wal_sender_timeout: %w", err)
	}
	ms, err := time.ParseDuration(timeout + "ms")
	if err != nil {
		return nil, fmt.Errorf("read wal_sender_timeout: %w", err)
	}
	logged := false
	for deadline := time.Now().Add(s.o.SlotWait); ; {
		state, err := s.checkSlot(ctx)
		if err != nil {
			return nil, err
		}
		w, err := s.openStream(ctx, start, names, o)
		if err == nil {
			return newStream(s, w, start, ms), nil
		}
		if code(err) != "55006" {
			return nil, s.explain(ctx, err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w: %s, by the backend with pid %d: another firn runs, or one that died is not yet noticed: %w", ErrSlotInUse, s.o.Slot, state.ActivePID, err)
		}
		if !logged {
			logged = true
			s.o.Logger.Warn("the replication slot is in use; waiting", "slot", s.o.Slot, "pid", state.ActivePID, "limit", s.o.SlotWait)
		}
		if err := sleep(ctx, slotRetry); err != nil {
			return nil, err
		}
	}
}

// streamed names the publications that a stream takes, quoted: ours, and that
// for inserts alone if it exists.
func (s *Source) streamed(ctx context.Context) ([]string, error) {
	var names []string
	for _, name := range []string{s.o.Publication, s.o.Publication + appendSuffix} {
		p, err := s.publication(ctx, name)
		if err != nil {
			return nil, err
		}
		if p != nil {
			names = append(names, ident(name))
		} else if name == s.o.Publication {
			// Postgres 18 would only warn, and send nothing.
			return nil, fmt.Errorf("%w: %s", ErrPublicationMissing, name)
		}
	}
	return names, nil
}

func newStream(s *Source, w *wire, start wal.LSN, timeout time.Duration) *Stream {
	st := &Stream{
		s: s, w: w, timeout: timeout,
		batches: make(chan *wal.Batch, s.o.Batches),
		free:    make(chan []byte, s.o.Batches),
		poke:    make(chan struct{}, 1),
	}
	for range s.o.Batches {
		st.free <- nil // allocated at first use
	}
	st.acked.Store(uint64(start))
	st.received.Store(uint64(start))
	return st
}

// openStream makes the connection and sends START_REPLICATION.
func (s *Source) openStream(ctx context.Context, start wal.LSN, publications []string, o StreamOptions) (*wire, error) {
	c, lazy, err := s.connectReplication(ctx, true)
	if err != nil {
		return nil, err
	}
	major := majorVersion(c)
	w, err := hijack(ctx, c, lazy)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = w.SetDeadline(time.Unix(1, 0)) })
	err = w.send(startCommand(s.o.Slot, start, publications, major, o))
	for err == nil {
		var typ byte
		var body []byte
		if typ, body, err = w.frames.next(); err != nil {
			break
		}
		switch typ {
		case 'W':
			if !stop() {
				err = ctx.Err()
				break
			}
			lazy.lazy.Store(true)
			return w, nil
		case 'E':
			err = serverError(body)
		case 'N', 'S':
		default:
			err = fmt.Errorf("unexpected message %q", typ)
		}
	}
	stop()
	w.terminate()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, err
}

// startCommand asks for the newest protocol the server has, without two_phase,
// which would change the slot for good.
func startCommand(slot string, start wal.LSN, publications []string, major int, o StreamOptions) string {
	proto := 2
	if major >= 16 {
		proto = 4
	}
	opts := []string{
		fmt.Sprintf("proto_version '%d'", proto),
		"publication_names " + literal(strings.Join(publications, ",")),
	}
	if o.Streaming {
		opts = append(opts, "streaming 'on'")
	}
	if o.Messages {
		opts = append(opts, "messages 'true'")
	}
	return fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (%s)", ident(slot), start, strings.Join(opts, ", "))
}

// Batches yields what was read, in order, until Run has ended. A batch must be
// released before Options.Batches others have been taken: the reader waits for
// its buffer.
func (st *Stream) Batches() <-chan *wal.Batch { return st.batches }

// Ack says that all before lsn is durable with the caller; Postgres may forget
// it. It is sent within 100 ms. An lsn below an earlier one is ignored, one
// beyond Received is cut to it: Postgres would take it at its word and skip what
// lies between.
func (st *Stream) Ack(lsn wal.LSN) {
	v := min(uint64(lsn), st.received.Load())
	for {
		old := st.acked.Load()
		if v <= old {
			return
		}
		if st.acked.CompareAndSwap(old, v) {
			st.wake()
			return
		}
	}
}

// Acked is the durable position as Postgres is told it.
func (st *Stream) Acked() wal.LSN { return wal.LSN(st.acked.Load()) }

// Received is how far the stream has been read from the socket.
func (st *Stream) Received() wal.LSN { return wal.LSN(st.received.Load()) }

// Ping asks Postgres for its position, which comes as a keepalive behind
// everything sent before it.
func (st *Stream) Ping() {
	st.ping.Store(true)
	st.wake()
}

func (st *Stream) wake() {
	select {
	case st.poke <- struct{}{}:
	default:
	}
}

// Close ends a stream that Run was never called for.
func (st *Stream) Close() { st.w.terminate() }

// Run reads until ctx ends, Postgres ends the stream, or it must be dropped. It
// returns ctx's error after telling Postgres the last acknowledgement; the batches
// not yet taken are void then.
//
// Errors: ErrShutdown, ErrSlotLost, ErrPublicationMissing, or what broke.
func (st *Stream) Run(ctx context.Context) error {
	defer close(st.batches)
	defer st.w.terminate()
	r := &reader{st: st}
	g, gctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(gctx, func() {
		// The reader may be in a read: wake it.
		_ = st.w.SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	g.Go(func() error { return r.run(gctx) })
	g.Go(func() error { return st.answer(gctx) })
	g.Go(func() error { return st.watchShutdown(gctx) })
	g.Go(func() error { return st.watchSilence(gctx) })
	err := g.Wait()
	if ctx.Err() != nil {
		if err := st.finish(r); err != nil {
			st.s.o.Logger.Warn("the last acknowledgement may not have arrived", "lsn", st.Acked(), "err", err)
		}
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("stream changes: %w", st.s.explain(ctx, err))
	}
	return errors.New("stream changes: ended without a reason")
}

// status encodes a standby status update. All three positions are the durable
// one: with flush missing Postgres would take write for it.
func (st *Stream) status() []byte {
	b := make([]byte, 0, 39)
	b = append(b, 'd', 0, 0, 0, 38, 'r')
	lsn := st.acked.Load()
	for range 3 {
		b = binary.BigEndian.AppendUint64(b, lsn)
	}
	now := time.Since(pgEpoch).Microseconds()
	b = binary.BigEndian.AppendUint64(b, uint64(now))
	if st.ping.Swap(false) {
		return append(b, 1)
	}
	return append(b, 0)
}

var pgEpoch = wal.Clock(0)

// answer sends the position when it has moved, when Postgres asks, and often
// enough for wal_sender_timeout; never more than ten times a second. It gives up
// when Postgres keeps asking and nothing gets durable: that is a shutdown.
func (st *Stream) answer(ctx context.Context) error {
	every := 10 * time.Second
	if st.timeout > 0 {
		every = max(min(every, st.timeout/4), answerGap)
	}
	t := time.NewTicker(every)
	defer t.Stop()
	var stuckSince, lastAsked time.Time
	var stuckAt uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-st.poke:
		}
		if st.asked.Swap(0) > 0 {
			now := time.Now()
			if now.Sub(lastAsked) > 5*answerGap || stuckAt != st.acked.Load() {
				stuckSince, stuckAt = now, st.acked.Load()
			}
			lastAsked = now
			if now.Sub(stuckSince) > stuckLimit {
				return fmt.Errorf("%w: it keeps asking for a confirmation and nothing could be committed for %s", ErrShutdown, stuckLimit)
			}
		}
		if err := st.w.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := st.w.Write(st.status()); err != nil {
			return fmt.Errorf("send acknowledgement: %w", err)
		}
		if err := sleep(ctx, answerGap); err != nil {
			return nil
		}
	}
}

// watchShutdown waits on an ordinary connection to be told that Postgres goes
// away. A connection that is lost alone (an administrator ended it) is made anew.
func (st *Stream) watchShutdown(ctx context.Context) error {
	logged := false
	for {
		c, err := st.s.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err == nil:
			logged = false
			err = waitForEnd(ctx, c)
			if ctx.Err() != nil {
				return nil
			}
			st.s.o.Logger.Debug("the watching connection has ended", "err", err)
			continue
		case code(err) == "57P03":
			return fmt.Errorf("%w: %w", ErrShutdown, err)
		case errors.Is(err, ErrUnreachable):
			// Gone, or the network is; the stream's own end tells which.
		}
		if !logged {
			logged = true
			st.s.o.Logger.Warn("cannot watch Postgres for a shutdown", "err", err)
		}
		if sleep(ctx, time.Second) != nil {
			return nil
		}
	}
}

// quietDefault is how long nothing may come, where wal_sender_timeout doesn't
// say it, before Postgres is asked whether it still streams to us.
const quietDefault = time.Minute

// watchSilence finds a connection that is dead without our having been told, as
// when a firewall forgets it: the walsender gets no answers and gives up, and
// we would read for ever. Silence itself proves nothing, for an idle server is
// silent and so is one in the middle of a huge transaction that it need not
// send; the slot, which names the walsender that holds it, does.
func (st *Stream) watchSilence(ctx context.Context) error {
	quiet := st.timeout
	if quiet == 0 {
		quiet = quietDefault
	}
	pid := int32(st.w.pid)
	if active, err := st.s.activePID(ctx); err == nil && active != 0 {
		pid = active // a pooler between tells another
	}
	for {
		if sleep(ctx, quiet/2) != nil {
			return nil
		}
		since := st.waiting.Load()
		if since == 0 || time.Since(time.Unix(0, since)) < quiet {
			continue
		}
		active, err := st.s.activePID(ctx)
		if ctx.Err() != nil {
			return nil
		}
		// What came meanwhile, an end of the stream too, is the reader's.
		if err != nil || st.waiting.Load() != since || active == pid {
			continue
		}
		st.s.dropIdle() // they went the same way
		return fmt.Errorf("%w: nothing has come for %s, and Postgres streams to us no more", ErrUnreachable, time.Since(time.Unix(0, since)).Round(time.Second))
	}
}

// activePID asks, on a connection of its own, which walsender holds our slot;
// 0: none.
func (s *Source) activePID(ctx context.Context) (pid int32, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.QueryTimeout)
	defer cancel()
	c, err := s.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer closeConn(c)
	err = c.QueryRow(ctx, `SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE slot_name = $1`, s.o.Slot).Scan(&pid)
	return pid, err
}

func waitForEnd(ctx context.Context, c *pgx.Conn) error {
	defer closeConn(c)
	for {
		if _, err := c.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}

// finish tells Postgres the last position and ends the COPY in order. Closing
// with unread bytes would reset the connection, and with it the position.
func (st *Stream) finish(r *reader) error {
	if r.failed {
		return nil // the connection is gone, and Run's error says so
	}
	if err := st.w.SetDeadline(time.Now().Add(finishLimit)); err != nil {
		return err
	}
	if _, err := st.w.Write(append(st.status(), 'c', 0, 0, 0, 4)); err != nil {
		return err
	}
	st.w.lazy.lazy.Store(false)
	f := &frameReader{r: st.w, buf: make([]byte, wireBuffer)}
	f.preload(r.carry)
	for {
		typ, body, err := f.next()
		if err != nil {
			return err
		}
		switch typ {
		case 'Z':
			return nil
		case 'E':
			return serverError(body)
		}
	}
}

package lake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"firn/lake/index"
	"firn/wal"
)

// session is one run from the head to a failure or the end: the owner. All its
// fields belong to the goroutine of run.
type session struct {
	*Lake
	log   *slog.Logger
	group *errgroup.Group
	ctx   context.Context // of the group
	stop  <-chan struct{} // closed when the session is to end
	room  *encoding

	head     *HeadState // as it was when the session began
	source   string     // system identifier / timeline / database
	stream   Stream
	listed   Memberships // when the session began
	initial  Snapshot    // of the slot's creation; nil otherwise
	spoolDir string
	spools   int

	members map[uint32]*member // by OID
	decoder wal.Decoder
	txn     transaction           // the one being read, if open
	parked  map[uint32]*parkedTxn // streamed in-progress transactions, by xid
	inside  *parkedTxn            // the one whose stream block is being read
	strange map[uint32]bool       // relations that are none of ours, said once

	states     map[Ident]TableState // changes of standing that the next entry carries
	loading    bool
	loads      chan loadResult
	polling    bool
	looks      int // begun
	polled     chan pollResult
	measuring  bool
	measuredAt time.Time // begun
	measured   chan measured
	joining    []*member
	unsettled  []*member // with a sighting that the stream has not come to

	rewrites    []*rewrite // under way
	installed   []*rewrite // not yet published
	rewritten   chan rewriteResult
	share       int  // of a processor that rewrites have, in percent
	queued      bool // a rewrite has to wait for another
	late        bool // the stream is behind
	yielding    bool // the share is small for that, and it was said
	relocations chan relocation

	warmer  index.Warmer
	warming atomic.Bool

	following int // tables whose index is being brought up to the lake

	// The open epoch.
	position  wal.LSN // end of the last commit applied; the head's at first
	received  wal.LSN // end of the last commit that came in this session
	commit    lastCommit
	idle      wal.LSN   // WAL end that the server said holds nothing more for us
	dirtyAt   time.Time // when the oldest change of the open epoch arrived; zero: nothing to publish
	cutSoon   bool      // cut at the next commit boundary whatever the clock says
	cuts      []request // exact cuts asked for
	waits     []request // durability asked for
	epochNo   uint64    // of the newest sealed epoch
	sealedLSN wal.LSN
	safe      wal.LSN   // durable, or known to hold nothing for us; never goes back
	held      time.Time // until when nothing is read, for an exact cut to come

	// The committing epoch.
	committing *epoch
	committed  chan error

	durable        wal.LSN           // of the head
	lagging        map[Ident]wal.LSN // where tables are that the head calls behind
	committedEpoch uint64            // of the head
	advanced       time.Time
	stopping       bool
	hinting        atomic.Bool
	unhinted       map[TableStore]bool // tables whose version-hint.text is old
	failure        error
}

type lastCommit struct {
	time time.Time
	xid  uint32
}

func (s *session) nextSpool() int { s.spools++; return s.spools }

// fail notes an error that ends the session at the next look.
func (s *session) fail(err error) {
	if s.failure == nil {
		s.failure = err
	}
}

// session runs one session.
func (l *Lake) session(ctx context.Context) (err error) {
	// The group outlives ctx by the time it takes to commit what is open.
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, gctx := errgroup.WithContext(base)
	s := &session{
		Lake: l, log: l.o.Logger, group: group, ctx: gctx, stop: ctx.Done(),
		room: &encoding{
			bytes:     semaphore.NewWeighted(encodingBytesMax),
			cpus:      semaphore.NewWeighted(int64(runtime.GOMAXPROCS(0))),
			resolving: semaphore.NewWeighted(resolversMax),
			mem:       memory.DefaultAllocator,
		},
		members: map[uint32]*member{}, parked: map[uint32]*parkedTxn{}, strange: map[uint32]bool{},
		states: map[Ident]TableState{}, lagging: map[Ident]wal.LSN{}, loads: make(chan loadResult), polled: make(chan pollResult), measured: make(chan measured), committed: make(chan error, 1),
		rewritten: make(chan rewriteResult), relocations: make(chan relocation),
		unhinted: map[TableStore]bool{},
		spoolDir: filepath.Join(l.o.StateDir, "spool"), advanced: time.Now(),
	}
	if err := os.RemoveAll(s.spoolDir); err != nil {
		return fmt.Errorf("clear spool folder: %w", err)
	}
	if err := os.MkdirAll(s.spoolDir, 0o700); err != nil {
		return fmt.Errorf("create spool folder: %w", err)
	}
	defer func() {
		stop()
		werr := group.Wait()
		s.close()
		// Where the owner was stopped in the middle of something by the failure
		// of another goroutine, that one's error is the cause.
		if (err == nil || errors.Is(err, context.Canceled)) && werr != nil && !errors.Is(werr, context.Canceled) {
			err = werr
		}
	}()
	if err := s.begin(ctx); err != nil {
		return err
	}
	return s.run(ctx)
}

// close releases what the session held; its goroutines have ended.
func (s *session) close() {
	s.dropAsked()
	for _, m := range s.members {
		if m.table != nil {
			m.table.close(s.log)
			m.table = nil
		}
		s.dropSpool(m)
	}
	for _, p := range s.parked {
		p.drop(s.log)
	}
	if s.initial != nil {
		s.initial.Close()
	}
	for _, r := range append(s.cuts, s.waits...) {
		r.reply <- reply{err: errRestart}
	}
	s.status.Store(s.snapshotStatus(false))
}

// run is the owner's loop.
func (s *session) run(ctx context.Context) error {
	every := s.pulse()
	tick := time.NewTicker(every)
	defer tick.Stop()
	poll := time.NewTicker(s.o.Poll)
	defer poll.Stop()
	s.requestLoads()
	s.report()
	done := ctx.Done()
	var stopBy <-chan time.Time
	batches := s.stream.Batches()
	for {
		// Replay before reading on: what is parked only grows meanwhile.
		more, err := s.replaySome()
		if err != nil {
			return err
		}
		var again <-chan struct{}
		if more {
			again = always
		}
		s.settle()
		if err := s.maybeCut(); err != nil {
			return err
		}
		if s.failure != nil {
			return s.failure
		}
		if s.stopping && s.committing == nil && s.dirtyAt.IsZero() && !s.txn.open {
			s.log.Info("stopped", "lsn", s.durable.String())
			return nil
		}
		if p := s.pulse(); p != every {
			every = p
			tick.Reset(p)
			s.report()
		}
		in := batches
		if time.Now().Before(s.held) {
			in = nil
		}
		select {
		case b, ok := <-in:
			if !ok {
				if err := s.group.Wait(); err != nil {
					return err
				}
				return errors.New("the replication stream ended")
			}
			err := s.consume(b)
			b.Release()
			if err != nil {
				return err
			}
		case err := <-s.committed:
			if err := s.finishCommit(err); err != nil {
				return err
			}
		case r := <-s.loads:
			if err := s.loadDone(r); err != nil {
				return err
			}
		case r := <-s.rewritten:
			s.rewriteDone(r)
		case r := <-s.relocations:
			if err := s.relocate(r); err != nil {
				return err
			}
		case r := <-s.requests:
			s.accept(r)
		case <-poll.C:
			s.poll()
		case r := <-s.polled:
			if err := s.pollDone(r); err != nil {
				return err
			}
		case m := <-s.measured:
			s.measureDone(m)
		case <-tick.C:
			s.measure()
			s.report()
			s.hint()
			s.pace()
			s.compact()
			s.warm()
			if len(s.waits)+len(s.cuts)+len(s.joining)+len(s.unsettled) > 0 {
				s.stream.Ping()
			}
		case <-again:
		case <-s.ctx.Done():
			return s.group.Wait()
		case <-done:
			done = nil
			s.stopping, s.cutSoon = true, true
			stopBy = time.After(5 * time.Second)
			if !s.txn.open {
				batches = nil // nothing more begins
			}
		case <-stopBy:
			if s.committing == nil {
				return nil
			}
			stopBy = time.After(time.Second)
		}
		if s.stopping && !s.txn.open {
			batches = nil
		}
	}
}

// idlePulse is how often an owner with nothing to do looks around.
const idlePulse = time.Second

// pulse is how often the owner looks at the clock and reports.
func (s *session) pulse() time.Duration {
	idle := s.dirtyAt.IsZero() && s.committing == nil && !s.txn.open && !s.loading &&
		len(s.parked)+len(s.waits)+len(s.cuts)+len(s.joining)+len(s.unsettled)+len(s.states)+s.following == 0
	if idle && !s.stopping {
		return idlePulse
	}
	return min(s.o.Freshness/4, 250*time.Millisecond)
}

// always is ready to be received from.
var always = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"firn/catalog"
	"firn/compaction"
	"firn/lake/object"
	"firn/lake/snapshot"
)

// Expired is what one expiry did, or would do: first the entry that says what is
// no longer kept, then the files and log entries whose time has come.
type Expired struct {
	catalog.Expiry
	compaction.Swept
	Epochs, Tags int // kept now
}

// ErrBusy: no run of the lake takes the question up.
var ErrBusy = errors.New("the lake is being started, or an expiry is under way; try again in a minute")

// askMax is how long a question waits to be taken up.
const askMax = 20 * time.Second

// ErrKeepsAll: the configuration says that nothing is to be removed.
var ErrKeepsAll = errors.New("grace is 0s in firn.yaml, which keeps everything")

// expirer removes what no kept epoch needs: again and again, and when asked.
type expirer struct {
	log     *catalog.Log
	sweeper *compaction.Sweeper
	removed *atomic.Int64
	logger  *slog.Logger
	asked   chan expiryRequest
	next    time.Time // when to look next; sessions may be shorter than the grace time
}

type expiryRequest struct {
	dry   bool
	reply chan<- expiryReply
}

type expiryReply struct {
	Expired
	err error
}

// run serves one claim of the lake. With a grace of 0 it removes nothing.
func (x *expirer) run(ctx context.Context) error {
	every := x.sweeper.Grace / 2
	if x.next.IsZero() {
		x.next = time.Now().Add(every)
	}
	for {
		var due <-chan time.Time
		if every > 0 {
			due = time.After(time.Until(x.next))
		}
		var r expiryRequest
		select {
		case <-due:
			x.next = time.Now().Add(every)
		case r = <-x.asked:
		case <-ctx.Done():
			return nil
		}
		began := time.Now()
		var did Expired
		err := error(nil)
		switch {
		case r.dry:
			did, err = x.look(ctx)
		case every == 0:
			err = ErrKeepsAll
		default:
			did, err = x.expire(ctx)
		}
		if r.reply != nil {
			r.reply <- expiryReply{did, err}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, catalog.ErrFenced):
			return err
		case r.dry, errors.Is(err, ErrKeepsAll):
		case err != nil:
			x.logger.Warn("nothing more is removed until the next look", "after", every, "removed", did.Removed, "err", err)
		case did.Removed > 0:
			x.logger.Info("removed what no kept epoch needs", "objects", did.Removed, "bytes", did.RemovedBytes, "kept", did.Needed,
				"waiting", did.Waiting, "took", time.Since(began).Round(time.Millisecond))
		}
	}
}

func (x *expirer) expire(ctx context.Context) (Expired, error) {
	e, err := x.log.Expire(ctx)
	if err != nil {
		return Expired{}, fmt.Errorf("write down what is no longer kept: %w", err)
	}
	swept, err := x.sweeper.Sweep(ctx)
	x.removed.Add(int64(swept.Removed))
	return expired(x.log, e, swept), err
}

func (x *expirer) look(ctx context.Context) (Expired, error) {
	swept, err := x.sweeper.Look(ctx)
	return expired(x.log, x.log.Expirable(x.log.Head()), swept), err
}

func expired(log *catalog.Log, e catalog.Expiry, s compaction.Swept) Expired {
	out := Expired{Expiry: e, Swept: s, Epochs: len(log.Head().Epochs())}
	for range log.Head().Tags() {
		out.Tags++
	}
	return out
}

// ask has the claimed run expire now, or with dry look what it would do. It waits
// until the work is done.
func (x *expirer) ask(ctx context.Context, dry bool) (Expired, error) {
	reply := make(chan expiryReply, 1)
	select {
	case x.asked <- expiryRequest{dry, reply}:
	case <-time.After(askMax):
		return Expired{}, ErrBusy
	case <-ctx.Done():
		return Expired{}, fmt.Errorf("ask the lake's owner: %w", ctx.Err())
	}
	select {
	case r := <-reply:
		return r.Expired, r.err
	case <-ctx.Done():
		return Expired{}, fmt.Errorf("wait for the lake's owner: %w", ctx.Err())
	}
}

// Expire applies the retention now, and removes what its time has come for; with
// dry it only looks. It is for while the lake runs: ErrBusy, ErrKeepsAll.
func (e *Engine) Expire(ctx context.Context, dry bool) (Expired, error) {
	return e.expirer.ask(ctx, dry)
}

// Needless looks, from the warehouse alone, what would be expired, and what lies
// there that no kept epoch needs: nobody remembers since when, so all of it
// waits. A run's files on their way are among it.
func Needless(ctx context.Context, log *catalog.Log, store object.Store, grace time.Duration) (Expired, error) {
	x := &expirer{log: log, sweeper: newSweeper(log, store, snapshot.NewPending(), grace)}
	return x.look(ctx)
}

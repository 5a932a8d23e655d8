package listen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"firn/lake"
	"firn/wal"
)

// Position is what /wait, /hold and /cut answer with.
type Position struct {
	LSN   wal.LSN `json:"lsn"`
	Epoch uint64  `json:"epoch,omitempty"`
}

// Failure is their answer when it didn't work.
type Failure struct {
	Error string `json:"error"`
}

func reply(w http.ResponseWriter, code int, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		plain(w, http.StatusInternalServerError, "encode answer: "+err.Error()+"\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(data, '\n')) // the client is gone if this fails
}

func (l *Listener) status(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, l.o.Status())
}

func (l *Listener) ready(w http.ResponseWriter, _ *http.Request) {
	st := l.o.Status()
	if st.Ready {
		plain(w, http.StatusOK, "ready\n")
		return
	}
	plain(w, http.StatusServiceUnavailable, strings.Join(notReady(st), "\n")+"\n")
}

// notReady says what keeps a firn from being ready.
func notReady(st Status) []string {
	var why []string
	if st.Outage != "" {
		why = append(why, st.Outage)
	} else if !st.Running {
		why = append(why, "the stream is not being read yet")
	}
	for _, t := range st.Tables {
		if t.State == lake.Loading || t.State == lake.Behind {
			why = append(why, t.Name+" is "+t.State)
		}
	}
	return why
}

// waitMax bounds a request to /wait that names no timeout.
const waitMax = 30 * time.Second

// wait answers once the lake has every commit up to lsn; without one, up to
// now.
func (l *Listener) wait(w http.ResponseWriter, r *http.Request) {
	limit := waitMax
	if s := r.FormValue("timeout"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			reply(w, http.StatusBadRequest, Failure{"timeout: want a duration such as 30s"})
			return
		}
		limit = d
	}
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	var at wal.LSN
	var err error
	if s := r.FormValue("lsn"); s != "" {
		if at, err = wal.ParseLSN(s); err != nil {
			reply(w, http.StatusBadRequest, Failure{err.Error()})
			return
		}
	} else if at, err = l.o.Mirror.CommittedLSN(ctx); err != nil {
		reply(w, http.StatusBadGateway, Failure{fmt.Sprintf("ask Postgres where its WAL ends: %v", err)})
		return
	}
	for {
		got, err := l.o.Mirror.Wait(ctx, at)
		if err == nil {
			reply(w, http.StatusOK, Position{LSN: got})
			return
		}
		if ctx.Err() == nil {
			// The lake starts again from the head; ask its next session.
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-ctx.Done():
			}
		}
		reply(w, http.StatusGatewayTimeout, Failure{fmt.Sprintf("the lake did not reach %s within %s; it is at %s", at, limit, l.o.Status().DurableLSN)})
		return
	}
}

func (l *Listener) hold(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), waitMax)
	defer cancel()
	if err := l.o.Mirror.Hold(ctx); err != nil {
		fail(ctx, w, err)
		return
	}
	reply(w, http.StatusOK, Position{LSN: l.o.Status().ReceivedLSN})
}

func (l *Listener) cut(w http.ResponseWriter, r *http.Request) {
	at, err := wal.ParseLSN(r.FormValue("lsn"))
	if err != nil {
		reply(w, http.StatusBadRequest, Failure{err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), waitMax)
	defer cancel()
	lsn, epoch, err := l.o.Mirror.Cut(ctx, at)
	if err != nil {
		fail(ctx, w, err)
		return
	}
	reply(w, http.StatusOK, Position{LSN: lsn, Epoch: epoch})
}

// compact tells what there is to rewrite of the tables that are named, or of all,
// and with POST has it done.
func (l *Listener) compact(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), waitMax)
	defer cancel()
	do := l.o.Mirror.Backlog
	if r.Method == http.MethodPost {
		do = l.o.Mirror.Compact
	}
	b, err := do(ctx, r.URL.Query()["table"])
	switch {
	case errors.Is(err, lake.ErrNoTable):
		reply(w, http.StatusNotFound, Failure{err.Error()})
	case err != nil:
		fail(ctx, w, err)
	default:
		reply(w, http.StatusOK, b)
	}
}

// Expired is what /expire answers with: what an expiry did, or with GET would do.
type Expired struct {
	DryRun    bool   `json:"dry_run"`
	Retention string `json:"retention"` // the rule, for people
	Grace     string `json:"grace"`
	// Epochs and Tags are kept, Dropped epochs are not any more since just now.
	Epochs  int `json:"epochs"`
	Tags    int `json:"tags"`
	Dropped int `json:"dropped_epochs"`
	// LogMark: entries of the log below this number stay only for kept epochs.
	LogMark uint64 `json:"log_mark"`
	// Objects of tables and log: needed, removed (a dry run: to be removed), and
	// needed by nothing but for less than the grace time.
	Needed       int   `json:"needed_objects"`
	Removed      int   `json:"removed_objects"`
	RemovedBytes int64 `json:"removed_bytes"`
	Waiting      int   `json:"waiting_objects"`
	WaitingBytes int64 `json:"waiting_bytes"`
}

// expire has the lake remove what it no longer keeps; GET only tells.
func (l *Listener) expire(w http.ResponseWriter, r *http.Request) {
	x, err := l.o.Expire(r.Context(), r.Method == http.MethodGet)
	if err != nil {
		fail(r.Context(), w, err)
		return
	}
	reply(w, http.StatusOK, x)
}

// fail answers a question that the lake could not: too late (409, ask anew) or
// in no time (504).
func fail(ctx context.Context, w http.ResponseWriter, err error) {
	code := http.StatusConflict
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		code = http.StatusGatewayTimeout
	}
	reply(w, code, Failure{err.Error()})
}

package catalog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"time"
)

// commitTimeout bounds a commit whose client may have gone: it is ended by the
// log's own answers, not by a closed connection, so that its outcome is known.
const commitTimeout = 2 * time.Minute

// install makes a plan's assignments. It does no I/O and cannot fail.
type install func(next *State)

// plan reads st and prepares a change. It is called again when the head has
// moved, so it must depend on nothing but st and the request; it may keep
// objects that it has written. ErrUnchanged: there is nothing to do.
type plan func(ctx context.Context, st *State) (install, error)

// change commits what p plans, once per idempotency key. The returned state is
// the one in which the change stands.
func (s *server) change(ctx context.Context, c *call, p plan) (*State, error) {
	key, print, err := idempotency(c)
	if err != nil {
		return nil, err
	}
	st, err := s.refresh(ctx)
	if err != nil {
		return nil, err
	}
	if done, err := replay(c, st, key, print); done || err != nil {
		return st, err
	}
	if _, err := p(ctx, st); errors.Is(err, ErrUnchanged) {
		return st, nil
	} else if err != nil {
		return nil, err
	}
	commitCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	st, err = s.log.Commit(commitCtx, func(next *State) error {
		if done, err := replay(c, next, key, print); err != nil {
			return err
		} else if done {
			return ErrUnchanged
		}
		put, err := p(commitCtx, next)
		if err != nil {
			return err
		}
		put(next)
		if key != "" {
			next.PutOutcome(key, Outcome{Time: time.Now().UTC(), Result: print + " " + c.outcome})
		}
		return nil
	})
	var e *restError
	switch {
	case err == nil, errors.As(err, &e):
		return st, err
	case errors.Is(err, ErrUnknown):
		return nil, stateUnknown(err)
	}
	return nil, unavailable("commit to the catalog's log", err)
}

// idempotency reads the request's key, and a fingerprint that tells the same
// request from another under the same key.
func idempotency(c *call) (key, print string, err error) {
	key = c.r.Header.Get("Idempotency-Key")
	if key == "" {
		return "", "", nil
	}
	const keyBytesMax = 128
	if len(key) > keyBytesMax || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", "", badRequest("malformed Idempotency-Key")
	}
	h := sha256.New()
	for _, part := range []string{c.r.Method, c.r.URL.EscapedPath(), c.r.URL.RawQuery} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	h.Write(c.data)
	return key, hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// replay reports whether the request has been carried out before.
func replay(c *call, st *State, key, print string) (bool, error) {
	if key == "" {
		return false, nil
	}
	o, ok := st.Outcome(key)
	if !ok || time.Since(o.Time) > idempotencyLifetime {
		return false, nil
	}
	was, outcome, _ := strings.Cut(o.Result, " ")
	if was != print {
		return false, unprocessable("the Idempotency-Key has been used for another request")
	}
	c.outcome, c.replayed = outcome, true
	return true, nil
}

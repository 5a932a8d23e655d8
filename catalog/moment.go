package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"firn/wal"
)

// Moment names a state of the lake: one of its fields is set. The zero Moment
// is the head.
type Moment struct {
	LSN  wal.LSN
	Time time.Time
	Tag  string
}

// ParseMoment reads an LSN (16/B374D848), a time (RFC 3339), "latest", or else
// takes the text for a tag.
func ParseMoment(s string) (Moment, error) {
	if s == "" {
		return Moment{}, errors.New(`parse moment: it is empty; want an LSN, a time (RFC 3339), a tag or "latest"`)
	}
	if s == "latest" {
		return Moment{}, nil
	}
	if lsn, err := wal.ParseLSN(s); err == nil && lsn != 0 {
		return Moment{LSN: lsn}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		if t.IsZero() {
			return Moment{}, fmt.Errorf("parse moment: %s is before every lake", s)
		}
		return Moment{Time: t}, nil
	}
	return Moment{Tag: s}, nil
}

// String is the form that ParseMoment reads.
func (m Moment) String() string {
	switch {
	case m.LSN != 0:
		return m.LSN.String()
	case !m.Time.IsZero():
		return m.Time.UTC().Format(time.RFC3339Nano)
	case m.Tag != "":
		return m.Tag
	}
	return "latest"
}

// Entry returns the catalog as an entry left it; fs.ErrNotExist if the entry
// is not there.
func (l *Log) Entry(ctx context.Context, number uint64) (*State, error) {
	if head := l.Head(); head.CommitID != "" && head.Number == number {
		return head, nil
	}
	return l.read(ctx, number)
}

// AsOf returns the catalog as the newest kept epoch at or before m left it,
// from the head that is known here; only when m lies after that is the log
// asked for a newer one. Errors: ErrNotYet for an LSN after the head,
// ErrNotKept for a moment before the first kept epoch or an unknown tag.
func (l *Log) AsOf(ctx context.Context, m Moment) (*State, error) {
	head := l.Head()
	if m == (Moment{}) {
		return head, nil
	}
	_, tagged := head.Tag(m.Tag)
	if m.LSN > head.LSN || m.Time.After(head.CommitTime) || m.Tag != "" && !tagged {
		var err error
		if head, err = l.Refresh(ctx); err != nil {
			return nil, err
		}
	}
	k, err := head.KeptAt(m)
	if err != nil {
		return nil, err
	}
	return l.keptState(ctx, k)
}

// keptState reads the entry of a kept epoch.
func (l *Log) keptState(ctx context.Context, k Kept) (*State, error) {
	s, err := l.Entry(ctx, k.Number)
	if errors.Is(err, fs.ErrNotExist) || err == nil && s.CommitID != k.CommitID {
		return nil, fmt.Errorf("%w: entry %d is no longer the one of epoch %d", ErrNotKept, k.Number, k.Epoch)
	}
	return s, err
}

// Answer is the kept epoch that a moment is answered by.
type Answer struct {
	Kept
	// Thinned counts the epochs after it that are no longer kept and one of which
	// the moment may lie in: what Postgres held at the moment may be newer.
	Thinned uint64
	// Ahead: the moment lies after the newest commit that the lake has seen.
	Ahead bool
}

// Exact says whether the epoch is the one that the moment lies in.
func (a Answer) Exact() bool { return a.Thinned == 0 && !a.Ahead }

// Answer returns the kept epoch that KeptAt does, and how well it answers.
func (s *State) Answer(m Moment) (Answer, error) {
	k, err := s.KeptAt(m)
	if err != nil || m.Tag != "" || m == (Moment{}) {
		return Answer{Kept: k}, err
	}
	a := Answer{Kept: k, Ahead: m.LSN == 0 && m.Time.After(s.CommitTime)}
	if m.LSN == k.LSN || m.LSN == 0 && m.Time.Equal(k.Time) {
		return a, nil
	}
	epochs := s.Epochs()
	if i := slices.IndexFunc(epochs, func(x Kept) bool { return x.Number > k.Number }); i >= 0 && epochs[i].Epoch > k.Epoch+1 {
		a.Thinned = epochs[i].Epoch - k.Epoch - 1
	}
	return a, nil
}

// KeptAt returns the newest kept epoch at or before m, which is the newest of
// all for the zero Moment. Errors: ErrNotYet, ErrNotKept, as AsOf has them.
func (s *State) KeptAt(m Moment) (Kept, error) {
	if m.Tag != "" {
		t, ok := s.Tag(m.Tag)
		if !ok {
			return Kept{}, fmt.Errorf("%w: there is no tag %q", ErrNotKept, m.Tag)
		}
		return t.Kept, nil
	}
	if m.LSN > s.LSN {
		return Kept{}, fmt.Errorf("%w: the lake is at %s and %s was asked for", ErrNotYet, s.LSN, m.LSN)
	}
	epochs := s.Epochs()
	for i := len(epochs) - 1; i >= 0; i-- {
		if k := epochs[i]; m == (Moment{}) || m.LSN != 0 && k.LSN <= m.LSN || m.LSN == 0 && !k.Time.After(m.Time) {
			return k, nil
		}
	}
	if len(epochs) == 0 {
		return Kept{}, fmt.Errorf("%w: there is no epoch yet", ErrNotKept)
	}
	return Kept{}, fmt.Errorf("%w: the oldest kept epoch is %s of %s", ErrNotKept, epochs[0].LSN, epochs[0].Time.Format(time.RFC3339))
}

package catalog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Errors of Log.Tag and Log.Untag, beside those of AsOf and Commit.
var (
	// ErrTagName: a tag may not be called so.
	ErrTagName = errors.New("that cannot be a tag's name")
	// ErrTagTaken: the tag is there and names another epoch. A tag never
	// moves: who has noted it must find the same rows.
	ErrTagTaken = errors.New("there is a tag of that name already")
	// ErrNoTag: no tag is called so.
	ErrNoTag = errors.New("there is no such tag")
)

const tagBytesMax = 128

// CheckTagName refuses a name that a client could not tell from another
// moment, or not write after a warehouse's @: a tag is made of letters, digits
// and . _ -, begins with a letter or digit, and is neither latest nor main
// (every Iceberg table's branch).
func CheckTagName(name string) error {
	plain := func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrTagName)
	case len(name) > tagBytesMax:
		return fmt.Errorf("%w: it is longer than %d bytes", ErrTagName, tagBytesMax)
	case name == "latest", name == "main":
		return fmt.Errorf("%w: %q has a meaning of its own", ErrTagName, name)
	}
	if m, err := ParseMoment(name); err != nil || m.Tag == "" {
		return fmt.Errorf("%w: %q is an LSN or a time", ErrTagName, name)
	}
	for i, r := range name {
		if !plain(r) && (i == 0 || !strings.ContainsRune("._-", r)) {
			return fmt.Errorf("%w: %q; use letters, digits and . _ -, beginning with a letter or digit", ErrTagName, name)
		}
	}
	return nil
}

// Tag names the epoch that m lies in; with the zero Moment, the newest of all. The
// epoch is kept until Untag. Doing it again for the same epoch changes nothing.
// It is one entry of the log, for which the stream's commits do not wait.
// ErrThinned: that epoch is no longer kept. ErrNotYet: m lies after the lake's
// newest commit, so what its epoch will be is not known.
func (l *Log) Tag(ctx context.Context, name string, m Moment) (Tag, error) {
	return l.tag(ctx, name, m, false)
}

// TagNearest is Tag, but names the newest kept epoch before m where Tag refuses;
// not for a moment in the future.
func (l *Log) TagNearest(ctx context.Context, name string, m Moment) (Tag, error) {
	return l.tag(ctx, name, m, true)
}

func (l *Log) tag(ctx context.Context, name string, m Moment, nearest bool) (Tag, error) {
	if err := CheckTagName(name); err != nil {
		return Tag{}, err
	}
	if _, err := l.Refresh(ctx); err != nil {
		return Tag{}, err
	}
	var tag Tag
	_, err := l.Commit(ctx, func(next *State) error {
		a, err := next.Answer(m)
		if err == nil {
			err = l.fits(next, a, m, nearest)
		}
		if err != nil {
			return err
		}
		k := a.Kept
		if old, ok := next.Tag(name); ok {
			if tag = old; old.Kept.CommitID == k.CommitID {
				return ErrUnchanged
			}
			return fmt.Errorf("%w: %s names epoch %d at %s, of %s", ErrTagTaken, name, old.Epoch, old.LSN, old.Time.UTC().Format(time.RFC3339))
		}
		if _, err := l.keptState(ctx, k); err != nil {
			return err
		}
		tag = Tag{Kept: k, Created: l.clock.Now().UTC()}
		next.PutTag(name, tag)
		return nil
	})
	if err != nil {
		return Tag{}, err
	}
	return tag, nil
}

// fits refuses an answer that is not the moment's own epoch.
func (l *Log) fits(s *State, a Answer, m Moment, nearest bool) error {
	switch {
	case a.Ahead && m.Time.After(l.clock.Now()):
		return fmt.Errorf("%w: %s lies in the future", ErrNotYet, m)
	case nearest:
		return nil
	case a.Ahead:
		return fmt.Errorf("%w: the lake's newest commit is of %s", ErrNotYet, s.CommitTime.UTC().Format(time.RFC3339Nano))
	case a.Thinned > 0:
		return fmt.Errorf("%w: before it epoch %d of %s (%s) is kept, and the %d after that are not", ErrThinned, a.Epoch, a.Time.UTC().Format(time.RFC3339Nano), a.LSN, a.Thinned)
	}
	return nil
}

// Untag drops a tag and returns what it was. Its epoch is then thinned like
// any other.
func (l *Log) Untag(ctx context.Context, name string) (Tag, error) {
	if _, err := l.Refresh(ctx); err != nil {
		return Tag{}, err
	}
	var tag Tag
	_, err := l.Commit(ctx, func(next *State) error {
		var ok bool
		if tag, ok = next.Tag(name); !ok {
			return fmt.Errorf("%w: %q", ErrNoTag, name)
		}
		next.DropTag(name)
		return nil
	})
	return tag, err
}

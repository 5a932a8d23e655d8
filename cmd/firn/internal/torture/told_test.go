package torture

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// told is a test that tells once more at the very end why it failed, for the
// servers' logs come after the message itself, and who keeps only the end of the
// output would not see it.
type told struct {
	testing.TB

	mu     sync.Mutex
	replay string // the flags that replay it
	began  time.Time
	now    string // the step that the test is in
	since  time.Time
	faults []string // the first ones
	more   int      // after them
}

const (
	faultsMax     = 3
	faultLinesMax = 30
	lineBytesMax  = 300
)

// tell makes t a test that tells. It is called before anything else registers a
// cleanup, for the first one runs last.
func tell(t testing.TB, replay string) *told {
	w := &told{TB: t, replay: replay, began: time.Now(), since: time.Now(), now: "set-up"}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.summary())
		}
	})
	return w
}

// step says what the test does from now on.
func (w *told) step(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now, w.since = fmt.Sprintf(format, args...), time.Now()
}

func (w *told) summary() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s strings.Builder
	fmt.Fprintf(&s, "What failed, in short; replay with %s", w.replay)
	for _, f := range w.faults {
		s.WriteString("\n" + f)
	}
	if w.more > 0 {
		fmt.Fprintf(&s, "\nand %d more", w.more)
	}
	if len(w.faults) == 0 {
		s.WriteString("\nonly what a helper said, in the step: " + w.now)
	}
	return s.String()
}

func (w *told) fault(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) == faultsMax {
		w.more++
		return
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	cut := lines[:min(len(lines), faultLinesMax)]
	for i, l := range cut {
		cut[i] = l[:min(len(l), lineBytesMax)]
	}
	if len(cut) < len(lines) {
		cut = append(cut, fmt.Sprintf("… and %d lines, above", len(lines)-len(cut)))
	}
	w.faults = append(w.faults, fmt.Sprintf("%s in, for %s in the step %q:\n%s", time.Since(w.began).Round(time.Second),
		time.Since(w.since).Round(100*time.Millisecond), w.now, strings.Join(cut, "\n")))
}

// Errorf tells, as all of testing.TB's that fail the test do.
func (w *told) Errorf(format string, args ...any) {
	w.TB.Helper()
	w.fault(fmt.Sprintf(format, args...))
	w.TB.Errorf(format, args...)
}

// Error tells.
func (w *told) Error(args ...any) {
	w.TB.Helper()
	w.fault(fmt.Sprintln(args...))
	w.TB.Error(args...)
}

// Fatalf tells.
func (w *told) Fatalf(format string, args ...any) {
	w.TB.Helper()
	w.fault(fmt.Sprintf(format, args...))
	w.TB.Fatalf(format, args...)
}

// Fatal tells.
func (w *told) Fatal(args ...any) {
	w.TB.Helper()
	w.fault(fmt.Sprintln(args...))
	w.TB.Fatal(args...)
}

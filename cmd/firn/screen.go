package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/term"
)

// screen is where run talks to people: log lines that stay, and on a terminal
// below them a few lines that are drawn anew.
type screen struct {
	w     io.Writer
	width func() int // of the terminal; nil: it isn't one

	mu    sync.Mutex
	lines []string // drawn at present
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		s.width = func() int {
			if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 10 {
				return w
			}
			return 80
		}
	}
	return s
}

// terminal says whether lines can be drawn anew.
func (s *screen) terminal() bool { return s.width != nil }

// logger writes above the drawn lines.
func (s *screen) logger() *slog.Logger {
	o := &slog.HandlerOptions{}
	if s.terminal() {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				a.Value = slog.StringValue(a.Value.Time().Format("15:04:05"))
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(s, o))
}

// Write puts whole lines above the drawn ones.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	s.erase(&b)
	b.Write(p)
	s.draw(&b)
	if _, err := io.WriteString(s.w, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// say prints a line that stays.
func (s *screen) say(line string) { fmt.Fprintln(s, line) }

// show replaces the drawn lines; without a terminal it does nothing.
func (s *screen) show(lines ...string) {
	if !s.terminal() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	s.erase(&b)
	width := s.width()
	s.lines = s.lines[:0]
	for _, l := range lines {
		if r := []rune(l); len(r) >= width {
			l = string(r[:width-1])
		}
		s.lines = append(s.lines, l)
	}
	s.draw(&b)
	_, _ = io.WriteString(s.w, b.String()) // a terminal that is gone shows nothing
}

// clear takes the drawn lines away.
func (s *screen) clear() { s.show() }

func (s *screen) erase(b *strings.Builder) {
	for range s.lines {
		b.WriteString("\x1b[1A\x1b[2K")
	}
	if len(s.lines) > 0 {
		b.WriteString("\r")
	}
}

func (s *screen) draw(b *strings.Builder) {
	for _, l := range s.lines {
		b.WriteString(l)
		b.WriteString("\n")
	}
}

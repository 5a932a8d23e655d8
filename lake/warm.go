package lake

import "firn/lake/index"

// warm has the row indexes read into memory if the stream, or a rewrite's
// install, turns out to wait for their pages.
func (s *session) warm() {
	if s.warming.Load() {
		return
	}
	var indexes []*index.Index
	for _, m := range s.members {
		if m.table != nil && m.table.index != nil {
			indexes = append(indexes, m.table.index)
		}
	}
	read, bytes := s.warmer.Warm(indexes)
	if read == nil {
		return
	}
	s.log.Info("reading row indexes that lay on disk into memory", "bytes", bytes)
	s.warming.Store(true)
	s.group.Go(func() error {
		defer s.warming.Store(false)
		if err := read(s.ctx); err != nil && s.ctx.Err() == nil {
			s.log.Warn("row indexes stay on disk", "err", err) // slower, not wrong
		}
		return nil
	})
}

package snapshot

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBodyReadAfterDiscard: an attempt to upload that was given up may read on
// while the pieces serve another file. It must see an end, not the other's bytes.
func TestBodyReadAfterDiscard(t *testing.T) {
	for name, limit := range map[string]int64{"in memory": 1 << 20, "spilled": 0} {
		t.Run(name, func(t *testing.T) {
			b := &body{dir: t.TempDir(), limit: limit}
			content := bytes.Repeat([]byte("firn"), bodyChunk/2)
			_, err := b.Write(content)
			require.NoError(t, err)
			late := b.reader()
			got, err := io.ReadAll(b.reader())
			require.NoError(t, err)
			require.Equal(t, content, got)
			reading := make(chan error)
			go func() { // of the pieces, beside discard: -race is to see it
				for {
					if _, err := late.Seek(0, io.SeekStart); err != nil {
						reading <- err
						return
					}
					if _, err := io.Copy(io.Discard, late); err != nil {
						reading <- err
						return
					}
				}
			}()
			b.discard()
			require.ErrorIs(t, <-reading, os.ErrClosed)
		})
	}
}

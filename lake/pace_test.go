package lake

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// However many rewrites there are, together they have their share, and no pause
// is long.
func TestPacer(t *testing.T) {
	for _, tt := range []struct {
		share, workers int
		work           time.Duration
		want           float64 // of a processor
	}{
		{100, 1, 50 * time.Millisecond, 1},
		{50, 1, 50 * time.Millisecond, 0.5},
		{10, 1, 50 * time.Millisecond, 0.1},
		{50, 2, 50 * time.Millisecond, 0.5},
		{10, 2, 50 * time.Millisecond, 0.1},
		{1, 1, time.Second, 1. / 3}, // it pauses for 2 s, no longer
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &Pacer{}
			p.Share(tt.share)
			ctx, stop := context.WithTimeout(t.Context(), 100*time.Second)
			defer stop()
			var done sync.WaitGroup
			for range tt.workers {
				done.Go(func() {
					for {
						time.Sleep(tt.work)
						if p.Pause(ctx, tt.work) != nil {
							return
						}
					}
				})
			}
			done.Wait()
			worked, paused := p.Paced()
			require.InDelta(t, tt.want, worked.Seconds()/100, 0.02, "%+v", tt)
			require.InDelta(t, float64(tt.workers)*100, (worked + paused).Seconds(), 3, "%+v", tt)
		})
	}
}

func TestPacerOfNothing(t *testing.T) {
	var none *Pacer
	require.NoError(t, none.Pause(t.Context(), time.Hour))
	require.NoError(t, (&Pacer{}).Pause(t.Context(), time.Hour))
}

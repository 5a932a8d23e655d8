package index

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkIndex measures at 10M keys what DESIGN.md claims: a bulk load, and
// then epochs of a million changed keys each: look-up, update of the overlay,
// and the merge. Times are CPU time of the one thread, for a machine has other
// things to do.
func threadCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return time.Duration(ts.Nano())
}

func BenchmarkIndex(b *testing.B) {
	const keys, epoch = 10_000_000, 1_000_000
	for _, o := range []Options{{}, {Wide: true}, {Multi: true}} {
		name := "exact"
		if o.Multi {
			name = "multi"
		} else if o.Wide {
			name = "wide"
		}
		key := func(i uint64) Key {
			if !o.Wide && !o.Multi {
				return Key{Lo: i}
			}
			return Key{Hi: mix(i + 1), Lo: mix(i + 1<<40)}
		}
		b.Run(fmt.Sprintf("%s/keys=%d", name, keys), func(b *testing.B) {
			x, err := Open(b.TempDir(), o)
			require.NoError(b, err)
			defer x.Close()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			start := threadCPU()
			require.NoError(b, x.Load(keys, func(put func(Key, Loc) error) error {
				for i := range uint64(keys) {
					if err := put(key(i), Loc{1, uint32(i)}); err != nil {
						return err
					}
				}
				return nil
			}))
			files := []FileName{{No: 1, Path: "a"}, {No: 2, Path: "b"}}
			require.NoError(b, x.CommitLoad(1, 1, files))
			load := threadCPU() - start
			disk, _, _ := x.Bytes()

			var get, put, merge, longest time.Duration
			rng, n := uint64(1), uint64(1)
			batch := make([]Key, epoch)
			old := make([]Loc, epoch)
			changes := 0
			for b.Loop() {
				for i := range batch {
					rng++
					batch[i] = key(mix(rng) % keys)
				}
				t0 := threadCPU()
				for i, k := range batch {
					l, ok := x.Get(k)
					if !ok {
						b.Fatal("key is missing")
					}
					old[i] = l
				}
				t1 := threadCPU()
				for i, k := range batch {
					if o.Multi {
						if err := x.Remove(k, old[i]); err != nil {
							b.Fatal(err)
						}
					}
					if err := x.Put(k, Loc{2, uint32(i)}); err != nil {
						b.Fatal(err)
					}
				}
				t2 := threadCPU()
				n++
				require.NoError(b, x.Seal())
				require.NoError(b, x.Merge(n, 1, files, nil))
				t3 := threadCPU()
				get, put, merge = get+(t1-t0), put+(t2-t1), merge+(t3-t2)
				longest = max(longest, (t3 - t2))
				changes += epoch
			}
			per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(changes) }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(keys)/load.Seconds()/1e6, "Mloads/s")
			b.ReportMetric(float64(disk)/keys, "B/key")
			b.ReportMetric(per(get), "ns/get")
			b.ReportMetric(per(put), "ns/put")
			b.ReportMetric(per(merge), "ns/merged")
			b.ReportMetric(float64(longest.Milliseconds()), "ms/longest-merge")
		})
	}
}

package snapshot

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

func hexes(n int) []byte {
	var b []byte
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%x", md5.Sum(fmt.Append(nil, i)))
	}
	return b[:n]
}

func noise(n int) []byte {
	rng := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = rng.Read(b)
	return b
}

func TestLiteralFrames(t *testing.T) {
	dec, err := zstd.NewReader(nil)
	require.NoError(t, err)
	defer dec.Close()
	for _, n := range []int{0, 1, 2, 5, 11, 12, 13, 100, 255, 256, 257, 1023, 1024, 16383, 16384, 65535, 65791, 65792, zstdBlockMax - 1, zstdBlockMax, zstdBlockMax + 1, 3*zstdBlockMax + 7, 1 << 20} {
		for name, src := range map[string][]byte{"hex": hexes(n), "noise": noise(n), "same": bytes.Repeat([]byte{7}, n), "two": []byte(strings.Repeat("ab", n)[:n])} {
			frame := appendLiterals([]byte("before"), src)
			got, err := dec.DecodeAll(frame[len("before"):], nil)
			require.NoError(t, err, "%s of %d", name, n)
			require.True(t, bytes.Equal(src, got), "%s of %d", name, n)
			require.LessOrEqual(t, len(frame), len("before")+len(src)+12+3*(n/zstdBlockMax+1), "%s of %d", name, n)
		}
	}
}

func FuzzLiteralFrames(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"), 3)
	dec, err := zstd.NewReader(nil)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, seed []byte, times int) {
		src := bytes.Repeat(seed, max(0, times)%5000)
		got, err := dec.DecodeAll(appendLiterals(nil, src), nil)
		require.NoError(t, err)
		require.True(t, bytes.Equal(src, got))
	})
}

// What the encoder of Parquet files is given at each level is what it gets back,
// and only columns without matches go without looking for them.
func TestCodec(t *testing.T) {
	c, err := compress.GetCodec(compress.Codecs.Zstd)
	require.NoError(t, err)
	words := []byte(strings.Repeat("the quick brown fox jumps over the lazy dog; ", 3000))
	for _, src := range [][]byte{hexes(300_000), noise(100_000), words, make([]byte, literalBytesMax+1)} {
		for _, level := range []int{literalLevel, zstdLevel, compress.DefaultCompressionLevel, 3} {
			got, err := compress.Decode(c, make([]byte, 0, len(src)), c.EncodeLevel(nil, src, level))
			require.NoError(t, err)
			require.True(t, bytes.Equal(src, got))
		}
	}
	require.True(t, matchless(hexes(literalSample)))
	require.True(t, matchless(noise(literalSample)))
	require.False(t, matchless(words[:literalSample]))
	require.False(t, matchless(hexes(100)), "too little to tell")
}

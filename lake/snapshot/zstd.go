package snapshot

import (
	"encoding/binary"
	"errors"
	"sync"

	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/klauspost/compress/huff0"
	"github.com/klauspost/compress/zstd"
)

// Levels of compression, as given to the Parquet encoder.
const (
	zstdLevel = 1 // the default costs 40 % more CPU for 4 % of size
	// literalLevel makes zstd frames without matches: entropy coding alone, at a
	// third of the CPU. It is for hashes, tokens, random identifiers, measured
	// values: what looks for matches there finds next to none.
	literalLevel = -1000
)

// literalSample is how much of a column is compressed in both ways to choose.
const literalSample = 64 << 10

// wholeCodec is all that the Parquet encoder may ask of a codec.
type wholeCodec interface {
	compress.ErrorCodec
	compress.StreamingCodec
}

// codec is the Parquet library's zstd, but for frames of two levels: those of
// literalLevel, and those of zstdLevel, which have no checksum, as other Parquet
// writers' have none.
type codec struct{ wholeCodec }

func init() {
	c, err := compress.GetCodec(compress.Codecs.Zstd)
	if err != nil {
		panic(err) // the library always has it
	}
	compress.RegisterCodec(compress.Codecs.Zstd, codec{c.(wholeCodec)})
}

func (c codec) EncodeLevel(dst, src []byte, level int) []byte {
	switch {
	case level == literalLevel && len(src) <= literalBytesMax:
		return appendLiterals(dst[:0], src)
	case level == literalLevel || level == zstdLevel:
		e := encoders.Get().(*zstd.Encoder)
		defer encoders.Put(e)
		return e.EncodeAll(src, dst[:0])
	}
	return c.wholeCodec.EncodeLevel(dst, src, level)
}

var encoders = sync.Pool{New: func() any {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(zstdLevel)), zstd.WithEncoderConcurrency(1),
		zstd.WithZeroFrames(true), zstd.WithAllLitEntropyCompression(true), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}}

var scratches = sync.Pool{New: func() any { return &huff0.Scratch{Reuse: huff0.ReusePolicyNone} }}

const (
	zstdMagic    = 0xFD2FB528
	zstdBlockMax = 128 << 10
	// literalBytesMax bounds a frame, of whose size a decoder's window has to be.
	literalBytesMax = 8 << 20

	blockRaw        = 0
	blockRLE        = 1
	blockCompressed = 2
)

// appendLiterals appends src as a zstd frame of a single segment whose blocks
// have Huffman-coded literals and no sequences. Format: RFC 8878, section 3.1.1.
func appendLiterals(dst, src []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, zstdMagic)
	const singleSegment = 1 << 5
	switch n := len(src); {
	case n < 256:
		dst = append(dst, singleSegment, byte(n))
	case n < 1<<16+256:
		dst = append(dst, singleSegment|1<<6)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(n-256))
	default:
		dst = append(dst, singleSegment|2<<6)
		dst = binary.LittleEndian.AppendUint32(dst, uint32(n))
	}
	s := scratches.Get().(*huff0.Scratch)
	defer scratches.Put(s)
	for first := true; first || len(src) > 0; first = false {
		block := src[:min(len(src), zstdBlockMax)]
		src = src[len(block):]
		dst = appendLiteralBlock(dst, block, len(src) == 0, s)
	}
	return dst
}

func appendLiteralBlock(dst, block []byte, last bool, s *huff0.Scratch) []byte {
	header := func(dst []byte, kind, size int) []byte {
		h := uint32(kind)<<1 | uint32(size)<<3
		if last {
			h |= 1
		}
		return append(dst, byte(h), byte(h>>8), byte(h>>16))
	}
	if len(block) < 32 {
		return append(header(dst, blockRaw, len(block)), block...)
	}
	coded, _, err := huff0.Compress4X(block, s)
	if errors.Is(err, huff0.ErrUseRLE) {
		return append(header(dst, blockRLE, len(block)), block[0])
	}
	// The literals' header: compressed, four streams, the two sizes in 14 or 18
	// bits each.
	head, bits, format := 4, 14, uint64(2)
	if max(len(block), len(coded)) >= 1<<14 {
		head, bits, format = 5, 18, 3
	}
	size := head + len(coded) + 1 // no sequences: one byte
	if err != nil || size >= len(block) {
		return append(header(dst, blockRaw, len(block)), block...)
	}
	dst = header(dst, blockCompressed, size)
	h := blockCompressed | format<<2 | uint64(len(block))<<4 | uint64(len(coded))<<(4+bits)
	for range head {
		dst = append(dst, byte(h))
		h >>= 8
	}
	return append(append(dst, coded...), 0)
}

// matchless says whether looking for matches in a column's bytes saves less than
// a quarter of what entropy coding alone leaves of them, for which it takes three
// times as long.
func matchless(sample []byte) bool {
	if len(sample) < literalSample/16 {
		return false
	}
	e := encoders.Get().(*zstd.Encoder)
	defer encoders.Put(e)
	return 3*len(appendLiterals(nil, sample)) <= 4*len(e.EncodeAll(sample, nil))
}

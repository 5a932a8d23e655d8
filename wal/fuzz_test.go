package wal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"firn/wal"
)

// FuzzDecode feeds one message, within a streamed segment or outside. What
// decodes must point into the message, and survive being encoded again.
func FuzzDecode(f *testing.F) {
	for _, msg := range rows() {
		f.Add(false, msg)
	}
	f.Fuzz(func(t *testing.T, stream bool, msg []byte) {
		var d wal.Decoder
		d.SetInStream(stream)
		before := bytes.Clone(msg)
		kind, err := d.Decode(msg)
		if !bytes.Equal(before, msg) {
			t.Fatal("the message was written to")
		}
		if err != nil {
			if kind != 0 || stream != d.InStream() {
				t.Fatalf("after error %v: kind %v, in stream %t", err, kind, d.InStream())
			}
			return
		}
		for _, tuple := range []wal.Tuple{d.Old, d.New} {
			for _, v := range tuple {
				if !within(v.Data, msg) || strings.IndexByte("nutb", v.Kind) < 0 {
					t.Fatalf("value %+v does not lie in the message", v)
				}
			}
		}
		if !within(d.Logical.Content, msg) {
			t.Fatal("the content does not lie in the message")
		}

		again := encode(kind, &d)
		var d2 wal.Decoder
		d2.SetInStream(stream)
		kind2, err := d2.Decode(again)
		if err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
		if kind2 != kind || d2.InStream() != d.InStream() || !bytes.Equal(again, encode(kind2, &d2)) {
			t.Fatalf("%v does not survive being encoded", kind)
		}
	})
}

func within(part, whole []byte) bool {
	if len(part) == 0 {
		return cap(part) == 0 || within(part[:cap(part)], whole)
	}
	from := uintptr(unsafe.Pointer(unsafe.SliceData(part)))
	start := uintptr(unsafe.Pointer(unsafe.SliceData(whole)))
	return from >= start && from+uintptr(len(part)) <= start+uintptr(len(whole)) && cap(part) == len(part)
}

// TestSeeds rewrites the fuzzer's seeds, with -capture: of every capture one
// message of each kind.
func TestSeeds(t *testing.T) {
	if !*capture {
		t.Skip("rewrites files")
	}
	dir := filepath.Join("testdata", "fuzz", "FuzzDecode")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, c := range captures {
		seen := map[string]bool{}
		var d wal.Decoder
		for _, m := range readCapture(t, c.name) {
			in := d.InStream()
			if _, err := d.Decode(m.msg); err != nil {
				require.ErrorIs(t, err, wal.ErrTwoPhase)
			}
			// A file system may fold case, and S and s mean different things.
			name := fmt.Sprintf("%s-%02x-%t", c.name, m.msg[0], in)
			if seen[name] || len(m.msg) > 500 {
				continue
			}
			seen[name] = true
			seed := fmt.Sprintf("go test fuzz v1\nbool(%t)\n[]byte(%q)\n", in, m.msg)
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(seed), 0o644))
		}
	}
}

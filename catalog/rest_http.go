package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
)

// gzipBytesMin is the size from which an answer is compressed: below, it fits
// one packet anyway.
const gzipBytesMin = 1400

var gzipWriters = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// body reads a request's JSON into v, which has its limit in bytes (after
// gzip) and in depth. Fields that v does not know are ignored, as the
// specification grows by them.
func (c *call) body(v any) error {
	data, err := c.readBody()
	if err != nil {
		return err
	}
	if err := checkDepth(data); err != nil {
		return err
	}
	c.data = data
	return guard(func() error {
		if err := json.Unmarshal(data, v); err != nil {
			return badRequest("malformed request body: %v", err)
		}
		return nil
	})
}

func (c *call) readBody() ([]byte, error) {
	var in io.Reader = c.r.Body
	if c.r.Body == nil {
		in = http.NoBody
	}
	switch enc := strings.ToLower(c.r.Header.Get("Content-Encoding")); enc {
	case "", "identity":
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, asBadRequest("malformed gzip in request body", err)
		}
		defer z.Close()
		in = z
	default:
		return nil, &restError{Status: http.StatusUnsupportedMediaType, Type: "BadRequestException", Message: "unknown content encoding: " + enc}
	}
	data, err := io.ReadAll(io.LimitReader(in, requestBytesMax+1))
	if err != nil {
		return nil, asBadRequest("read request body", err)
	}
	if len(data) > requestBytesMax {
		return nil, &http.MaxBytesError{Limit: requestBytesMax}
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, badRequest("the request has no body")
	}
	return data, nil
}

// asBadRequest keeps the error of a body that was too long, which has an
// answer of its own.
func asBadRequest(doing string, err error) error {
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return err
	}
	return badRequest("%s: %v", doing, err)
}

// checkDepth refuses JSON nested deeper than jsonDepthMax: the decoders of
// nested types parse each level again, so depth costs its square.
func checkDepth(data []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch b := data[i]; {
		case inString:
			switch b {
			case '\\':
				i++
			case '"':
				inString = false
			}
		case b == '"':
			inString = true
		case b == '{', b == '[':
			if depth++; depth > jsonDepthMax {
				return badRequest("the request body is nested deeper than %d levels", jsonDepthMax)
			}
		case b == '}', b == ']':
			depth--
		}
	}
	return nil
}

// guard turns a panic of the Iceberg library's decoders and builders, which
// see whatever a client sends, into a refusal of the request.
func guard(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &restError{Status: http.StatusBadRequest, Type: "BadRequestException",
				Message: "malformed request", cause: fmt.Errorf("recovered: %v", v)}
		}
	}()
	return fn()
}

// reply answers 200 with v as JSON.
func (c *call) reply(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return c.replyBytes(data)
}

// replyBytes answers 200 with JSON, compressed if the client takes that and it
// is worth it.
func (c *call) replyBytes(data []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Add("Vary", "Accept-Encoding")
	if len(data) < gzipBytesMin || !acceptsGzip(c.r) {
		h.Set("Content-Length", strconv.Itoa(len(data)))
		c.w.WriteHeader(http.StatusOK)
		_, _ = c.w.Write(data) // the client is gone if this fails: nobody is left to tell
		return nil
	}
	h.Set("Content-Encoding", "gzip")
	c.w.WriteHeader(http.StatusOK)
	z := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(z)
	z.Reset(c.w)
	_, _ = z.Write(data) // as above
	_ = z.Close()
	return nil
}

func (c *call) noContent() error {
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

// acceptsGzip reads Accept-Encoding; gzip;q=0 is a refusal.
func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name = strings.TrimSpace(name); !strings.EqualFold(name, "gzip") && name != "*" {
			continue
		}
		q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		if !ok {
			return true
		}
		v, err := strconv.ParseFloat(q, 64)
		return err == nil && v > 0
	}
	return false
}

// freshness remembers when the log was last looked at.
type freshness struct {
	mu sync.Mutex
	at time.Time
}

// due reports whether the last look is older than age.
func (f *freshness) due(age time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at.IsZero() || time.Since(f.at) >= age
}

func (f *freshness) seen(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at.After(f.at) {
		f.at = at
	}
}

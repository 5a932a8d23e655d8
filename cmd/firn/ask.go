package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"firn/catalog"
	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/listen"
)

// running is a firn that runs, as the commands ask it.
type running struct {
	url       string
	tokenFile string
}

// runningFlags adds --url and --token-file to a command.
func runningFlags(cmd *cobra.Command) *running {
	r := &running{}
	cmd.Flags().StringVar(&r.url, "url", first(os.Getenv("FIRN_URL"), "http://"+config.DefaultListen), "address of the running firn")
	cmd.Flags().StringVar(&r.tokenFile, "token-file", os.Getenv("FIRN_TOKEN_FILE"), "file with the bearer token, if that firn wants one")
	return r
}

// ask sends one request and reads the JSON answer into v.
func (r *running) ask(ctx context.Context, method, path string, query url.Values, v any) error {
	base, err := url.Parse(r.url)
	if err != nil || base.Host == "" {
		return &usageError{text: fmt.Sprintf("--url %s: want a URL such as http://%s", r.url, config.DefaultListen)}
	}
	u := base.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", r.url, err)
	}
	if r.tokenFile != "" {
		t, err := catalog.ReadToken(r.tokenFile)
		if err != nil {
			return &usageError{text: fmt.Sprintf("--token-file: %v", err)}
		}
		req.Header.Set("Authorization", "Bearer "+t)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return r.unreachable(err)
	}
	defer resp.Body.Close()
	const answerMax = 64 << 20
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerMax))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", r.url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return r.refused(resp.StatusCode, body)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read the answer of %s: it is not a firn's: %w", r.url, err)
	}
	return nil
}

// errNobody: nobody listens there.
var errNobody = errors.New("no firn answers")

func (r *running) unreachable(err error) error {
	var op *net.OpError
	if errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("%w at %s: %w. Is one running? Its address is --listen there and --url here", errNobody, r.url, err)
	}
	return fmt.Errorf("ask %s: %w", r.url, err)
}

func (r *running) refused(code int, body []byte) error {
	var f listen.Failure
	if err := json.Unmarshal(body, &f); err == nil && f.Error != "" {
		if code == http.StatusNotFound {
			return &usageError{text: f.Error + "; `firn status` lists them"}
		}
		return errors.New(f.Error)
	}
	if code == http.StatusUnauthorized {
		return &usageError{text: fmt.Sprintf("the firn at %s wants a token: give --token-file", r.url)}
	}
	return fmt.Errorf("ask %s: HTTP %d: %s", r.url, code, strings.TrimSpace(string(body[:min(len(body), 300)])))
}

package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
)

func (s *server) config(ctx context.Context, c *call) error {
	overrides := map[string]string{}
	if name := c.query.Get("warehouse"); !s.warehouseKnown(name) {
		st, err := s.resolve(ctx, name)
		if err != nil {
			return err
		}
		overrides = pinOverrides(st)
	}
	defaults := s.o.Config
	if defaults == nil {
		defaults = map[string]string{}
	}
	return c.reply(struct {
		Defaults    map[string]string `json:"defaults"`
		Overrides   map[string]string `json:"overrides"`
		Endpoints   []string          `json:"endpoints"`
		Idempotency string            `json:"idempotency-key-lifetime"`
	}{defaults, overrides, endpoints(), fmt.Sprintf("PT%dM", int(idempotencyLifetime.Minutes()))})
}

// oauthToken answers an OAuth2 client-credentials request whose secret is the
// token with the token itself, for clients that know no other way. Its errors
// are OAuth2's, not the catalog's.
func (s *server) oauthToken(_ context.Context, c *call) error {
	if s.o.Token == "" {
		return noRoute(c.r)
	}
	kind, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return c.oauthError(http.StatusBadRequest, "invalid_request", "want application/x-www-form-urlencoded")
	}
	data, err := c.readBody()
	if err != nil {
		return err
	}
	form, err := url.ParseQuery(string(data))
	if err != nil {
		return c.oauthError(http.StatusBadRequest, "invalid_request", "malformed form")
	}
	if form.Get("grant_type") != "client_credentials" {
		return c.oauthError(http.StatusBadRequest, "unsupported_grant_type", "want client_credentials")
	}
	secret := form.Get("client_secret")
	if _, password, ok := c.r.BasicAuth(); ok && secret == "" {
		secret = password
		// RFC 6749, 2.3.1: both halves are form-encoded before.
		if plain, err := url.QueryUnescape(password); err == nil && !s.tokenIs(secret) {
			secret = plain
		}
	}
	if !s.tokenIs(secret) {
		return c.oauthError(http.StatusUnauthorized, "invalid_client", "the client secret is not this catalog's token")
	}
	c.w.Header().Set("Cache-Control", "no-store")
	return c.reply(struct {
		Token  string `json:"access_token"`
		Type   string `json:"token_type"`
		Expiry int    `json:"expires_in"`
		Issued string `json:"issued_token_type"`
		Scope  string `json:"scope,omitempty"`
	}{s.o.Token, "bearer", 3600, "urn:ietf:params:oauth:token-type:access_token", form.Get("scope")})
}

func (c *call) oauthError(status int, code, text string) error {
	data, err := json.Marshal(map[string]string{"error": code, "error_description": text})
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(data)))
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="firn"`)
	}
	c.w.WriteHeader(status)
	_, _ = c.w.Write(data) // the client is gone if this fails: nobody is left to tell
	return nil
}

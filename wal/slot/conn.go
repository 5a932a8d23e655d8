package slot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pinned are the settings every session starts with. The first group fixes the
// text form of values, which a role's or database's own settings would change
// (03.02.2024); search_path does so for regclass and its kin. The second keeps
// a DBA's time limits from cutting a COPY, a held snapshot or an idle stream.
// With row_security off, a policy that would hide rows is an error, not a gap.
var pinned = map[string]string{
	"client_encoding":    "UTF8",
	"DateStyle":          "ISO",
	"IntervalStyle":      "postgres",
	"TimeZone":           "UTC",
	"extra_float_digits": "3",
	"bytea_output":       "hex",
	"search_path":        "pg_catalog",

	"statement_timeout":                   "0",
	"lock_timeout":                        "0",
	"idle_in_transaction_session_timeout": "0",
	"idle_session_timeout":                "0",
	"row_security":                        "off",
}

func parseConfig(o Options) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(o.URL)
	if err != nil {
		return nil, fmt.Errorf("parse Postgres URL: %w", err)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = o.ConnectTimeout
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = o.ApplicationName
	}
	for k, v := range pinned {
		for have := range cfg.RuntimeParams {
			if strings.EqualFold(have, k) {
				delete(cfg.RuntimeParams, have)
			}
		}
		cfg.RuntimeParams[k] = v
	}
	cfg.AfterConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		// The older servers refuse the name in a startup packet.
		if majorVersion(c) < 17 {
			return nil
		}
		return c.Exec(ctx, "SET transaction_timeout = 0").Close()
	}
	// No named prepared statements: a pooler may stand between.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	return cfg, nil
}

// connect makes an ordinary connection.
func (s *Source) connect(ctx context.Context) (*pgx.Conn, error) {
	c, err := pgx.ConnectConfig(ctx, s.cfg.Copy())
	if err != nil {
		return nil, classify(err)
	}
	return c, nil
}

// connectReplication makes a connection that takes replication commands. With
// lazy set, its reads go through a lazyConn (still eager), which is returned.
func (s *Source) connectReplication(ctx context.Context, lazy bool) (*pgconn.PgConn, *lazyConn, error) {
	cfg := s.cfg.Config.Copy()
	cfg.RuntimeParams["replication"] = "database"
	c, l, err := connectRaw(ctx, cfg, lazy)
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "42501" {
		return nil, nil, fmt.Errorf("%w: user %s may not open a replication connection: %w", ErrPrivilege, cfg.User, err)
	}
	return c, l, err
}

func connectRaw(ctx context.Context, cfg *pgconn.Config, lazy bool) (*pgconn.PgConn, *lazyConn, error) {
	var last *lazyConn
	if lazy {
		// Below TLS: above it each record would be one small read, and the
		// reader would sleep between records (measured: a collapse).
		dial := cfg.DialFunc
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			if last, err = newLazyConn(c); err != nil {
				return nil, errors.Join(err, c.Close())
			}
			return last, nil
		}
	}
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, nil, classify(err)
	}
	return c, last, nil
}

func majorVersion(c *pgconn.PgConn) int {
	v := c.ParameterStatus("server_version")
	end := 0
	for end < len(v) && v[end] >= '0' && v[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(v[:end])
	if err != nil {
		return 0 // a server that hides its version is treated as an old one
	}
	return n
}

const closeTimeout = 2 * time.Second

// closeConn says goodbye; the connection is gone whatever that returns.
func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.Close(ctx)
}

func closePgConn(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.Close(ctx)
}

// ident quotes an identifier, literal a string constant.
func ident(s string) string { return pgx.Identifier{s}.Sanitize() }

func identTable(t TableName) string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }

func literal(s string) string {
	// standard_conforming_strings may be off; E'' with doubled backslashes
	// reads the same either way.
	q := strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `'`, `''`)
	if strings.Contains(s, `\`) {
		return `E'` + q + `'`
	}
	return `'` + q + `'`
}

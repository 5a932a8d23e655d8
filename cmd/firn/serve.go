package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/listen"
	"firn/lake"
)

func serveCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve [WAREHOUSE]",
		Short: "Serve a lake's catalog, without its Postgres",
		Long: `Serves the Iceberg REST catalog of a lake, from nothing but its warehouse. Any
number of these may run, anywhere, beside the firn that mirrors.`,
		Example: `  firn serve ./lake --listen 127.0.0.1:8182
  firn serve s3://lake/shop --s3-endpoint http://minio:9000 --listen 0.0.0.0:8181 --token-file /run/secrets/firn`,
		Args: cobra.MaximumNArgs(1),
	}
	flags := config.NewFlags(cmd.Flags(), "warehouse", "s3-endpoint", "reader-s3-endpoint", "listen", "token-file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := flags.Read()
		if err != nil {
			return err
		}
		if len(args) == 1 {
			c.Warehouse = args[0]
		}
		return a.serve(cmd.Context(), c)
	}
	return cmd
}

func (a *app) serve(ctx context.Context, c *config.Config) error {
	for _, check := range []func() error{c.NeedWarehouse, c.NeedListen} {
		if err := check(); err != nil {
			return err
		}
	}
	secret, err := token(c)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(a.err, nil))
	w, err := openLake(ctx, c, logger)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	served := &served{place: w, log: logger}
	l, err := listen.Open(ctx, listen.Options{Address: c.Listen, Token: secret, Catalog: w.handler(secret, logger),
		Status: served.status, Version: version(), Logger: logger})
	if err != nil {
		return err
	}
	a.say("catalog of %s at %s, warehouse %q", c.Warehouse, l.URL(), w.name())
	return l.Run(ctx)
}

// served tells a lake's status from its log alone.
type served struct {
	place *warehouse
	log   *slog.Logger

	mu     sync.Mutex
	looked time.Time
	err    error // of the last look
}

// lookEvery bounds how often the log is looked at for /status and /metrics.
const lookEvery = time.Second

func (s *served) status() listen.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.looked) > lookEvery {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, s.err = s.place.log.Refresh(ctx)
		cancel()
		s.looked = time.Now()
	}
	head := s.place.log.Head()
	st := listen.Status{
		Status: lake.Status{DurableLSN: head.LSN, CommitTime: head.CommitTime, Epoch: head.Epoch},
		Ready:  s.err == nil, Version: version(), Warehouse: s.place.name(), Location: s.place.c.Warehouse,
		RetainedWALBytes: -1, RetainedWALLimitBytes: -1,
	}
	if s.err != nil {
		st.Outage = fmt.Sprintf("the warehouse can't be read: %v", s.err)
	}
	for id, t := range head.Tables() {
		x := lake.TableStatus{Name: id.String(), SnapshotID: t.SnapshotID}
		if m := t.Mirror; m != nil {
			x.State, x.Reason, x.LSN = m.State, m.Reason, m.LSN
			if m.State == lake.Streaming {
				x.LSN = head.LSN
			}
		}
		st.Tables = append(st.Tables, x)
	}
	return st
}

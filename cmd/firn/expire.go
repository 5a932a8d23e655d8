package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/listen"
	"firn/cmd/firn/internal/wire"
	"firn/lake"
)

func expireCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "expire",
		Short: "Remove now what the lake no longer keeps",
		Long: `Applies the retention (firn.yaml) to the lake's history, and removes the files and
log entries that no kept epoch and no tag needs, once nothing has needed them for
the grace time (an hour by default). A running firn does so by itself, twice in
that time; this asks it to do it now. --dry-run removes nothing and says what
would go, and what waits.

Only the firn that mirrors the lake removes anything: it alone knows what is on
its way. Without it --dry-run, with --warehouse, tells what nothing needs.`,
		Example: `  firn expire --dry-run
  firn expire --url http://127.0.0.1:8181 --json
  firn expire --dry-run --warehouse s3://lake/shop`,
		Args: cobra.NoArgs,
	}
	f := upkeepFlags(cmd, "remove nothing, only say what would go")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, online, err := f.read(cmd.Context())
		if err != nil {
			return err
		}
		var x *listen.Expired
		switch {
		case online:
			method := "POST"
			if f.dry {
				method = "GET"
			}
			x = &listen.Expired{}
			err = f.firn.ask(cmd.Context(), method, "/expire", nil, x)
		case f.dry:
			a.say("no firn of this lake answers at %s: looking at the warehouse alone", f.firn.url)
			x, err = a.needless(cmd.Context(), c)
		default:
			err = &lake.Refusal{Code: exitPreflight, Text: fmt.Sprintf("No firn that mirrors into %s answers at %s, and only that one may remove its files", c.Warehouse, f.firn.url),
				Fix: "Start `firn run`, which removes what is due by itself, or give its address with --url; --dry-run tells what is there to go."}
		}
		if err != nil {
			return err
		}
		if f.asJSON {
			return a.printJSON(x)
		}
		a.printExpired(x, online)
		return nil
	}
	return cmd
}

// needless looks from the warehouse.
func (a *app) needless(ctx context.Context, c *config.Config) (*listen.Expired, error) {
	w, err := openLake(ctx, c, a.warnings())
	if err != nil {
		return nil, err
	}
	x, err := wire.Needless(ctx, w.log, w.store, time.Duration(c.Grace))
	if err != nil {
		return nil, err
	}
	return expired(c, x, true), nil
}

// expire is what the listener asks for.
func (m *mirror) expire(ctx context.Context, dry bool) (*listen.Expired, error) {
	x, err := m.engine.Expire(ctx, dry)
	if err != nil {
		return nil, err
	}
	return expired(m.c, x, dry), nil
}

func expired(c *config.Config, x wire.Expired, dry bool) *listen.Expired {
	return &listen.Expired{DryRun: dry, Retention: c.Retention.String(), Grace: c.Grace.String(), Epochs: x.Epochs, Tags: x.Tags,
		Dropped: len(x.Expiry.Epochs), LogMark: x.Trimmed, Needed: x.Needed,
		Removed: x.Removed, RemovedBytes: x.RemovedBytes, Waiting: x.Waiting, WaitingBytes: x.WaitingBytes}
}

func (a *app) printExpired(x *listen.Expired, online bool) {
	fmt.Fprintf(a.out, "kept: %s and %s, by the rule: %s\n", count(x.Epochs, "epoch"), count(x.Tags, "tag"), x.Retention)
	dropped, removed := "no longer kept", "removed"
	if x.DryRun {
		dropped, removed = "would no longer be kept", "would be removed"
	}
	if x.Dropped > 0 {
		fmt.Fprintf(a.out, "%s: %s\n", dropped, count(x.Dropped, "epoch"))
	}
	if online {
		fmt.Fprintf(a.out, "%s: %s, %s\n", removed, count(x.Removed, "object"), listen.Size(x.RemovedBytes))
		fmt.Fprintf(a.out, "waiting until nothing has needed them for %s: %s, %s\n", x.Grace, count(x.Waiting, "object"), listen.Size(x.WaitingBytes))
		return
	}
	fmt.Fprintf(a.out, "needed by nothing: %s, %s; the next `firn run` removes them once it has seen that for %s\n",
		count(x.Waiting, "object"), listen.Size(x.WaitingBytes), x.Grace)
}

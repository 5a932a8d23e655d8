package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/listen"
)

// upkeep is the flags of a command that the firn which mirrors is asked to do,
// and that looks at the warehouse itself where none runs.
type upkeep struct {
	cmd    *cobra.Command
	flags  *config.Flags
	firn   *running
	dry    bool
	asJSON bool
}

// upkeepFlags adds them to a command; dry says what --dry-run does.
func upkeepFlags(cmd *cobra.Command, dry string) *upkeep {
	f := &upkeep{cmd: cmd, flags: config.NewFlags(cmd.Flags(), "warehouse", "s3-endpoint"), firn: runningFlags(cmd)}
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, dry)
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return f
}

// read returns the settings, and whether a running firn is to be asked; an
// address that the user gave must be that of one.
func (f *upkeep) read(ctx context.Context) (c *config.Config, online bool, err error) {
	if c, err = f.flags.Read(); err != nil {
		return nil, false, err
	}
	online, err = f.firn.mirrors(ctx, c, f.cmd.Flags().Changed("url"))
	return c, online, err
}

// mirrors says whether a firn answers that mirrors into c's warehouse, if one is
// named; only says that nothing else will do.
func (r *running) mirrors(ctx context.Context, c *config.Config, only bool) (bool, error) {
	var st listen.Status
	err := r.ask(ctx, "GET", "/status", nil, &st)
	switch {
	case err != nil && (only || c.Warehouse == "" || !errors.Is(err, errNobody)):
		return false, err
	case err != nil:
		return false, c.NeedWarehouse()
	case c.Warehouse == "":
		if st.Database == "" {
			return false, &usageError{text: fmt.Sprintf("the firn at %s only serves the catalog: give --warehouse, the lake that it serves", r.url)}
		}
		return true, nil
	}
	if err := c.NeedWarehouse(); err != nil {
		return false, err
	}
	mine, err := c.Place()
	if err != nil {
		return false, err
	}
	its, err := (&config.Config{Warehouse: st.Location}).Place()
	if err != nil {
		return false, err
	}
	same := st.Database != "" && (mine == its || c.Warehouse == st.Location)
	if !same && only {
		return false, &usageError{text: fmt.Sprintf("the firn at %s does not mirror into %s but into %s; leave out one of --url and --warehouse", r.url, c.Warehouse, st.Location)}
	}
	return same, nil
}

package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"firn/cmd/firn/internal/config"
)

func runCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Mirror a database: load its tables, then follow its changes",
		Long: `Mirrors a Postgres database into Iceberg tables and serves their catalog.

The first start creates a publication and a replication slot, loads the tables
and goes on with the changes since. Every later start goes on where the lake
stands, after a kill too. SIGTERM or Ctrl-C commits what is open and ends;
a second one ends at once.

Every flag has an environment variable: --s3-endpoint is FIRN_S3_ENDPOINT. All
other settings, those of single tables among them, are in firn.yaml (--config).
S3 credentials come from where the AWS tools look for them.`,
		Example: `  # a folder, for a try
  firn run --postgres postgres://firn@127.0.0.1/shop --warehouse ./lake

  # MinIO; the password stays out of ps
  export FIRN_POSTGRES=postgres://firn:secret@db.internal/shop
  firn run --warehouse s3://lake/shop --s3-endpoint http://127.0.0.1:9000

  # some tables only
  firn run --warehouse ./lake --tables 'public.*' --tables '!public.audit_*'`,
		Args: cobra.NoArgs,
	}
	flags := config.NewFlags(cmd.Flags(), "postgres", "warehouse", "s3-endpoint", "reader-s3-endpoint", "catalog",
		"listen", "token-file", "freshness", "state", "tables")
	profiles := profileFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := flags.Read()
		if err != nil {
			return err
		}
		stop, err := profiles.start()
		if err != nil {
			return err
		}
		if flags.ShowsPassword() {
			a.say("warning: the password in --postgres is visible to every user of this machine (ps); use FIRN_POSTGRES, PGPASSWORD or ~/.pgpass")
		}
		return errors.Join(a.run(cmd.Context(), c), stop())
	}
	return cmd
}

func (a *app) run(ctx context.Context, c *config.Config) error {
	screen := newScreen(a.err)
	m, err := openMirror(ctx, c, screen.logger())
	if err != nil {
		return unlessStopped(ctx, err)
	}
	defer m.close()
	screen.say(m.banner())
	defer screen.clear()
	return m.run(ctx, func(ctx context.Context) error { return showProgress(ctx, screen, m) })
}

// unlessStopped is nil for an error that only says that the user stopped firn.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

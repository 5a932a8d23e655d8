package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// commands makes every command there is; a new one is a file and a line here.
var commands = []func(*app) *cobra.Command{
	runCommand,
	demoCommand,
	serveCommand,
	statusCommand,
	waitCommand,
	doctorCommand,
	snapshotsCommand,
	asofCommand,
	tagCommand,
	verifyCommand,
	diffCommand,
	compactCommand,
	expireCommand,
	teardownCommand,
}

// app is what all commands share: the process' streams. A command's answer
// goes to out, all that is said on the way to err.
type app struct {
	in  io.Reader
	out io.Writer
	err io.Writer

	ran bool // a command has begun: its errors aren't usage errors
}

// main runs the command that args name and returns the exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.ran {
		err = &usageError{text: fmt.Sprintf("%v\nSee `%s --help`.", err, cmd.CommandPath())}
	}
	return a.fail(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "firn",
		Short: "Mirror a Postgres database into Iceberg tables that any engine reads",
		Long: `firn mirrors a Postgres database into Iceberg tables, in S3 or a folder, and
serves their catalog. Every snapshot is Postgres as it stood at one commit; all
tables at one commit are an epoch.

"firn doctor" says what is missing before the first "firn run", "firn demo" needs
nothing at all. Commands that look at the lake take --warehouse, those that ask a
running firn --url; both can be set once, as FIRN_WAREHOUSE and FIRN_URL.`,
		Example: `  firn run --postgres postgres://firn@127.0.0.1/shop --warehouse ./lake
  firn run --warehouse s3://lake/shop --s3-endpoint http://127.0.0.1:9000   # FIRN_POSTGRES is set
  firn status`,
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetVersionTemplate("firn {{.Version}}\n")
	for _, make := range commands {
		cmd := make(a)
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.ran = true
			return run(cmd, args)
		}
		root.AddCommand(cmd)
	}
	return root
}

// released is the version of a release build, set by the linker.
var released string

func version() string {
	if released != "" {
		return released
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}

// printJSON is the answer of a command with --json.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	return nil
}

// say tells a person something beside a command's answer.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.err, "firn: "+format+"\n", args...)
}

// fail prints err and returns the exit code for it.
func (a *app) fail(err error) int {
	code, text := explain(err)
	var quiet *saidError
	if !errors.As(err, &quiet) {
		a.say("%s", text)
	}
	return code
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"firn/catalog"
	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/demo"
	"firn/cmd/firn/internal/listen"
	"firn/lake"
	"firn/lake/audit"
	"firn/wal/localpg"
)

type demoOptions struct {
	dir, listen string
	chosen      bool // the listener's address is the user's choice
	limit       time.Duration
	fresh       bool
}

func demoCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work: a throwaway Postgres, a busy shop, and its lake",
		Long: `Starts a throwaway Postgres in ./firn-demo (binaries are fetched if none are
installed), fills a small shop, keeps inserting, updating and deleting in it,
and mirrors it into ./firn-demo/lake. What it prints can be pasted into DuckDB,
Python or Spark. Ctrl-C ends everything; the next start goes on from there.

With --for it ends by itself, and compares every table of the lake with Postgres
first: exit code 6 says that something differs.`,
		Example: `  firn demo
  firn demo --for 30s
  firn demo --fresh`,
		Args: cobra.NoArgs,
	}
	var o demoOptions
	cmd.Flags().StringVar(&o.dir, "dir", "firn-demo", "folder for Postgres and the lake")
	cmd.Flags().StringVar(&o.listen, "listen", config.DefaultListen, "address of the catalog (if that is taken and none was chosen, a free port)")
	cmd.Flags().DurationVar(&o.limit, "for", 0, "end after this long, with a proof (default: run until Ctrl-C)")
	cmd.Flags().BoolVar(&o.fresh, "fresh", false, "forget the earlier demo in the folder and start afresh")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.chosen = cmd.Flags().Changed("listen")
		if o.limit < 0 {
			return &usageError{text: "--for: want a duration such as 30s"}
		}
		return unlessStopped(cmd.Context(), a.demo(cmd.Context(), o))
	}
	return cmd
}

func (a *app) demo(ctx context.Context, o demoOptions) (err error) {
	screen := newScreen(a.err)
	defer screen.clear()
	place, err := demo.OpenPlace(o.dir, o.fresh)
	switch {
	case errors.Is(err, demo.ErrInUse):
		return &lake.Refusal{Code: exitFenced, Text: err.Error(), Fix: "Stop it, or give this one another --dir."}
	case errors.Is(err, demo.ErrForeign):
		return &usageError{text: err.Error() + ": give another --dir, or --fresh if it is an earlier demo's"}
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, place.Close()) }()
	server, err := a.startShop(ctx, screen, place)
	if err != nil {
		return err
	}
	defer func() {
		// ctx has ended if the user stopped the demo.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, server.Stop(end))
	}()
	c := config.Default()
	c.Postgres, c.Warehouse, c.State = server.URL(demo.Database), place.Lake, place.State
	c.Listen, c.Freshness = o.listen, config.Duration(time.Second)
	// The line below says how it goes; what goes wrong is still logged.
	logger := slog.New(slog.NewTextHandler(screen, &slog.HandlerOptions{Level: slog.LevelWarn}))
	m, err := openDemoMirror(ctx, c, o.chosen, logger)
	if err != nil {
		return err
	}
	defer m.close()
	screen.say(m.banner())
	d := &demonstration{app: a, o: o, place: place, mirror: m, screen: screen, writer: demo.NewWriter(c.Postgres, 4*time.Millisecond)}
	return d.run(ctx)
}

// startShop starts Postgres, and says what takes long.
func (a *app) startShop(ctx context.Context, screen *screen, place *demo.Place) (*localpg.Server, error) {
	last := time.Time{}
	f := localpg.Finder{Progress: func(p localpg.Progress) {
		if time.Since(last) < time.Second && p.Done != p.Total {
			return
		}
		last = time.Now()
		text := fmt.Sprintf("firn: fetching %s, %s of %s", p.What, listen.Size(p.Done), listen.Size(p.Total))
		if screen.terminal() {
			screen.show(text)
		} else {
			screen.say(text)
		}
	}}
	bin, err := f.Find(ctx)
	if err != nil {
		return nil, err
	}
	screen.clear()
	if place.Resumed {
		screen.say(fmt.Sprintf("firn: going on with the demo in %s (--fresh starts afresh)", place.Dir))
	} else {
		screen.say(fmt.Sprintf("firn: starting Postgres in %s and filling a shop", place.Postgres))
	}
	return place.Start(ctx, bin)
}

// openDemoMirror takes a free port where the default one is in use.
func openDemoMirror(ctx context.Context, c *config.Config, chosen bool, logger *slog.Logger) (*mirror, error) {
	m, err := openMirror(ctx, c, logger)
	if !chosen && errors.Is(err, syscall.EADDRINUSE) {
		c.Listen = "127.0.0.1:0"
		m, err = openMirror(ctx, c, logger)
	}
	return m, err
}

// demonstration is a demo whose servers run.
type demonstration struct {
	*app
	o      demoOptions
	place  *demo.Place
	mirror *mirror
	screen *screen
	writer *demo.Writer
	failed error // what ended it before its time
}

// run mirrors until ctx ends or the time is over.
func (d *demonstration) run(ctx context.Context) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	err := d.mirror.run(working,
		func(ctx context.Context) error { return d.line(ctx) },
		func(ctx context.Context) error {
			// It ends before the mirror does, which commits what it wrote.
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(working, cancel)()
			return d.writer.Run(ctx)
		},
		func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(working, cancel)()
			defer stop()
			d.failed = d.script(ctx)
			return nil
		})
	d.screen.clear()
	if ctx.Err() != nil {
		folders := d.place.Dir
		if !strings.HasPrefix(d.place.Postgres, d.place.Dir) {
			folders += " " + d.place.Postgres
		}
		d.screen.say(fmt.Sprintf("firn: stopped; `firn demo` goes on from here, and rm -r %s removes it", folders))
		return err
	}
	return errors.Join(d.failed, err)
}

// script shows how to read, waits, and proves.
func (d *demonstration) script(ctx context.Context) error {
	if err := d.loaded(ctx); err != nil {
		return unlessStopped(ctx, err)
	}
	d.writer.Reset()
	lake, err := d.lake()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(d.paper(), "\n%s\n", lake.Snippets()); err != nil {
		return fmt.Errorf("print snippets: %w", err)
	}
	if d.o.limit == 0 {
		d.screen.say("firn: the shop is busy and the lake follows; Ctrl-C ends both")
		<-ctx.Done()
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(d.o.limit):
	}
	return unlessStopped(ctx, d.prove(ctx))
}

// paper is where answers go: above the drawn line where both are on one
// terminal.
func (d *demonstration) paper() io.Writer {
	if f, ok := d.out.(*os.File); ok && d.screen.terminal() && term.IsTerminal(int(f.Fd())) {
		return d.screen
	}
	return d.out
}

// loaded waits until every table streams.
func (d *demonstration) loaded(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		st := d.mirror.status()
		streaming := 0
		for _, t := range st.Tables {
			switch t.State {
			case lake.Streaming:
				streaming++
			case lake.Quarantined, lake.Skipped:
				return fmt.Errorf("table %s is %s: %s", t.Name, t.State, t.Reason)
			}
		}
		if st.Ready && streaming >= len(demo.Tables) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// lake says where the tables are, for the snippets.
func (d *demonstration) lake() (demo.Lake, error) {
	log, store := d.mirror.engine.Log, d.mirror.engine.Store
	head := log.Head()
	t, ok := head.Table(catalog.Ident{Namespace: []string{"public"}, Name: "orders"})
	if !ok {
		return demo.Lake{}, errors.New("table public.orders is not in the lake")
	}
	if _, ok := store.Key(t.Metadata); !ok {
		return demo.Lake{}, fmt.Errorf("table public.orders lies outside the lake, at %s", t.Metadata)
	}
	return demo.Lake{Catalog: d.mirror.listener.URL(), Warehouse: d.mirror.place.name(), Moment: head.CommitTime,
		Orders: strings.TrimPrefix(t.Location, "file://"), Postgres: d.mirror.c.Postgres}, nil
}

// line shows what goes on: drawn anew on a terminal, else now and then.
func (d *demonstration) line(ctx context.Context) error {
	every := drawEvery
	if !d.screen.terminal() {
		every = loadEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var changes rate
	changes.at(time.Now(), 0, 0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			st := d.mirror.status()
			changes.at(now, changesOf(d.mirror.engine.Lake.Counters()), 0)
			var rows int64
			for _, t := range st.Tables {
				rows += max(t.Rows, t.LoadRows)
			}
			text := fmt.Sprintf("%s rows · %s changes/s · lag %s (%.1f s) · epoch %d at %s",
				listen.Count(rows), listen.Count(int64(changes.rowsPerS+0.5)), listen.Size(st.LagBytes), st.Freshness, st.Epoch, st.DurableLSN)
			if st.Outage != "" {
				text = "interrupted: " + st.Outage
			}
			if d.screen.terminal() {
				d.screen.show(text)
			} else {
				d.screen.say("firn: " + text)
			}
		}
	}
}

// prove compares every table, while the shop stays busy, and asks that each saw
// every kind of change.
func (d *demonstration) prove(ctx context.Context) error {
	counts := d.writer.Counts() // of what the report will have seen
	e := d.mirror.engine
	report, err := audit.Verify(ctx, audit.Options{Source: e.Source.Source, SlotName: d.mirror.slot, Log: e.Log, Store: e.Store,
		Mirror: asked{e}, Standing: standings(d.mirror.status().Tables), Logger: d.mirror.log})
	if err != nil {
		return err
	}
	var text bytes.Buffer
	answer := &app{out: &text}
	if err := answer.printProof(report, counts); err != nil {
		return err
	}
	for _, x := range report.Tables {
		if x.Result == audit.Different {
			answer.printDifferences(x)
		}
	}
	if _, err := d.paper().Write(text.Bytes()); err != nil {
		return fmt.Errorf("print proof: %w", err)
	}
	if report.Count(audit.Equal) != len(report.Tables) || len(report.Tables) < len(demo.Tables) {
		d.screen.say(fmt.Sprintf("firn: the lake differs from Postgres, and must not: please keep %s and report it", d.place.Dir))
		return &saidError{code: exitDiffers}
	}
	for _, name := range demo.Tables {
		if c := counts[name]; c.Updates == 0 || c.Deletes == 0 {
			d.screen.say(fmt.Sprintf("firn: table %s saw no update or no delete, so this proves little: run it longer (--for)", name))
			return &saidError{code: exitDiffers}
		}
	}
	return nil
}

func (a *app) printProof(report *audit.Report, counts map[string]demo.Changes) error {
	fmt.Fprintf(a.out, "Postgres and the lake (epoch %d) at %s, while the shop stays open:\n\n", report.Epoch, report.LSN)
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TABLE\tINSERTS\tUPDATES\tDELETES\tROWS IN POSTGRES\tROWS IN THE LAKE\tCHECKSUM OF BOTH\tRESULT")
	for _, x := range report.Tables {
		c := counts[strings.TrimPrefix(x.Name, "public.")]
		sums := x.Postgres.Checksum
		if sums != x.Lake.Checksum {
			sums += " ≠ " + x.Lake.Checksum
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", x.Name, c.Inserts, c.Updates, c.Deletes, x.Postgres.Rows, x.Lake.Rows, sums, strings.TrimSpace(x.Result+" "+x.Reason))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print proof: %w", err)
	}
	return nil
}

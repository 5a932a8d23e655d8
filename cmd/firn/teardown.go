package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/listen"
	"firn/lake"
	"firn/wal/slot"
)

func teardownCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "teardown",
		Short: "Drop what firn made in Postgres, and with --lake the lake",
		Long: `Drops firn's replication slot and publications in Postgres; the tables there
are not touched. The lake stays, readable, but can't be continued any more.
With --lake its data are removed too. It says first what will go, and asks.`,
		Example: `  firn teardown --postgres postgres://firn@127.0.0.1/shop --warehouse ./lake
  firn teardown --postgres postgres://firn@127.0.0.1/shop --warehouse ./lake --lake --yes`,
		Args: cobra.NoArgs,
	}
	flags := config.NewFlags(cmd.Flags(), "postgres", "warehouse", "s3-endpoint", "state")
	whole := cmd.Flags().Bool("lake", false, "remove the lake's data too")
	yes := cmd.Flags().Bool("yes", false, "don't ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := flags.Read()
		if err != nil {
			return err
		}
		for _, check := range []func() error{c.NeedPostgres, c.NeedWarehouse} {
			if err := check(); err != nil {
				return err
			}
		}
		return a.teardown(cmd.Context(), c, *whole, *yes)
	}
	return cmd
}

func (a *app) teardown(ctx context.Context, c *config.Config, whole, yes bool) error {
	state, err := c.StateDir()
	if err != nil {
		return err
	}
	lock, err := lockState(state)
	if err != nil {
		return err
	}
	defer lock.Unlock() //nolint:errcheck // the process ends
	w, err := openLake(ctx, c, a.warnings())
	if err != nil {
		return err
	}
	slotName, publication, err := w.names()
	if err != nil {
		return err
	}
	src, err := slot.Open(ctx, slot.Options{URL: c.Postgres, Slot: slotName, Publication: publication, Logger: a.warnings()})
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer src.Close()
	if err := a.checkTeardown(ctx, c, src, w); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "In database %s:\n  replication slot %s\n  publications %s and %s_append\n", c.Address(), slotName, publication, publication)
	var keys []string
	if whole {
		var lines []string
		if keys, lines, err = w.contents(ctx); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "In %s, for good:\n  %s\n", c.Warehouse, strings.Join(lines, "\n  "))
	} else {
		fmt.Fprintf(a.out, "The lake at %s stays, readable, and can't be continued.\n", c.Warehouse)
	}
	if !yes {
		if err := a.confirm(); err != nil {
			return err
		}
	}
	if err := src.DropSlot(ctx, slotName); err != nil {
		return err
	}
	if err := src.DropPublication(ctx); err != nil {
		return fmt.Errorf("drop publication %s: %w", publication, err)
	}
	if whole {
		if err := w.remove(ctx, keys); err != nil {
			return err
		}
	}
	if err := removeState(state); err != nil {
		return err
	}
	fmt.Fprintln(a.out, "Done.")
	return nil
}

// checkTeardown refuses to drop what isn't this lake's, or is in use.
func (a *app) checkTeardown(ctx context.Context, c *config.Config, src *slot.Source, w *warehouse) error {
	if was := w.log.Head().Source; was != nil {
		id, err := src.Identify(ctx)
		if err != nil {
			return err
		}
		if id.SystemID != was.SystemID || id.Database != was.Database {
			return &lake.Refusal{Code: exitDiverged, Text: fmt.Sprintf("This lake mirrors database %s of cluster %s, and %s is database %s of cluster %s",
				was.Database, was.SystemID, c.Address(), id.Database, id.SystemID), Fix: "Nothing has been changed. Check --postgres and --warehouse."}
		}
	}
	st, err := src.Slot(ctx)
	if err != nil {
		return err
	}
	if st != nil && st.Active {
		return &lake.Refusal{Code: exitFenced, Text: fmt.Sprintf("A firn is streaming from slot %s (Postgres process %d)", st.Name, st.ActivePID), Fix: "Stop it first."}
	}
	return nil
}

// contents lists all objects of the lake, and a line for each folder of it.
func (w *warehouse) contents(ctx context.Context) (keys, lines []string, err error) {
	objects, err := w.store.List(ctx, "", "", 0)
	if err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", w.c.Warehouse, err)
	}
	type sum struct{ objects, bytes int64 }
	folders := map[string]sum{}
	for _, o := range objects {
		keys = append(keys, o.Key)
		parts := strings.Split(o.Key, "/")
		name := strings.Join(parts[:min(2, len(parts)-1)], "/") + "/"
		if parts[0] == "_firn" || len(parts) == 1 {
			name = parts[0]
		}
		s := folders[name]
		folders[name] = sum{s.objects + 1, s.bytes + o.Size}
	}
	for _, name := range slices.Sorted(maps.Keys(folders)) {
		s := folders[name]
		lines = append(lines, fmt.Sprintf("%s  %s, %s", name, count(int(s.objects), "object"), listen.Size(s.bytes)))
	}
	return keys, lines, nil
}

// remove deletes the lake's objects. The log goes last, newest entry at the
// very end, so that what an interrupted teardown leaves is a lake still and
// can be torn down again.
func (w *warehouse) remove(ctx context.Context, keys []string) error {
	isLog := func(k string) bool { return strings.HasPrefix(k, "_firn/") }
	slices.SortFunc(keys, func(a, b string) int {
		switch {
		case isLog(a) != isLog(b):
			if isLog(a) {
				return 1
			}
			return -1
		case isLog(a):
			return cmp.Compare(b, a) // newer entries sort first
		}
		return cmp.Compare(a, b)
	})
	const batch = 1000
	for part := range slices.Chunk(keys, batch) {
		if err := w.store.Delete(ctx, part...); err != nil {
			return fmt.Errorf("remove the lake at %s: %w", w.c.Warehouse, err)
		}
	}
	folder, err := w.c.Folder()
	if err != nil || folder == "" {
		return err
	}
	return removeEmpty(folder)
}

// removeEmpty removes a folder and those in it as far as they are empty.
func removeEmpty(folder string) error {
	var dirs []string
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("remove empty folders: %w", err)
	}
	for _, dir := range slices.Backward(dirs) {
		entries, err := os.ReadDir(dir)
		if err == nil && len(entries) == 0 {
			err = os.Remove(dir)
		}
		if err != nil {
			return fmt.Errorf("remove empty folders: %w", err)
		}
	}
	return nil
}

// removeState takes away what firn keeps in its state folder, and the folder
// itself if nothing else is in it.
func removeState(dir string) error {
	for _, name := range []string{"index", "spool", "tmp", "lock"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove state folder: %w", err)
		}
	}
	return removeEmpty(dir)
}

// confirm asks the person at the terminal.
func (a *app) confirm() error {
	f, isFile := a.in.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return &usageError{text: "nothing has been removed: there is nobody to ask; give --yes"}
	}
	fmt.Fprint(a.out, "Remove all that? Type yes: ")
	line, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && line == "" {
		return errors.Join(&usageError{text: "nothing has been removed"}, err)
	}
	if strings.TrimSpace(line) != "yes" {
		return &usageError{text: "nothing has been removed"}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"firn/catalog"
	"firn/cmd/firn/internal/config"
	"firn/lake"
	"firn/lake/object"
	"firn/wal/slot"
)

// Exit codes. Those of 2 and above are not cured by a restart.
const (
	exitOK        = 0
	exitFailure   = 1
	exitUsage     = 2
	exitPreflight = lake.CodePreflight
	exitFenced    = lake.CodeFenced
	exitDiverged  = lake.CodeDiverged
	exitDiffers   = 6
)

// usageError is a command line that can't be run.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// saidError ends the process with a code, when all has been said already.
type saidError struct{ code int }

func (e *saidError) Error() string { return "see above" }

// preflightError is the first look's failure: what the store or the server
// answered before anything was begun.
type preflightError struct{ problems []slot.Problem }

func (e *preflightError) Error() string {
	lines := make([]string, len(e.problems))
	for i, p := range e.problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\nfirn: ")
}

// reactions say which exit code an error of the packages below means, and what
// to do, where its own text doesn't say so.
var reactions = []struct {
	is   error
	code int
	fix  string
}{
	{slot.ErrAuth, exitPreflight, "Check user, password and pg_hba.conf; the password is taken from FIRN_POSTGRES, PGPASSWORD or ~/.pgpass."},
	{slot.ErrNoDatabase, exitPreflight, "Check the database's name at the end of --postgres."},
	{slot.ErrPrivilege, exitPreflight, "`firn doctor` lists the rights that are missing."},
	{slot.ErrPublicationUnfit, exitPreflight, "Drop it, or choose another `publication:` in firn.yaml."},
	{slot.ErrSlotUnfit, exitPreflight, "Choose another `slot:` in firn.yaml."},
	{slot.ErrNoSlotFree, exitPreflight, "Drop a slot that nobody uses, or raise max_replication_slots and restart Postgres."},
	{slot.ErrSlotLost, exitDiverged, "The changes since are lost. Begin a new lake: `firn teardown`, or another --warehouse; a larger max_slot_wal_keep_size gives more time to catch up."},
	{slot.ErrSlotMissing, exitDiverged, "The changes since are lost. Begin a new lake: `firn teardown`, or another --warehouse."},
	{slot.ErrSlotInUse, exitFenced, "A firn is running on this lake; stop it first."},
	{slot.ErrUnreachable, exitFailure, "Check host and port of --postgres, and that the server runs."},
	{lake.ErrFenced, exitFenced, "Stop one of the two; only one may mirror into a warehouse."},
	{catalog.ErrFenced, exitFenced, "Stop one of the two; only one may mirror into a warehouse."},
	{catalog.ErrForeignWarehouse, exitPreflight, "Choose an empty folder or prefix for --warehouse."},
	{catalog.ErrRewound, exitDiverged, "The warehouse has been restored from an older copy. Nothing has been changed; begin a new lake in another --warehouse."},
	{catalog.ErrCorrupt, exitDiverged, "Nothing has been changed. Restore that object, or begin a new lake in another --warehouse."},
	{object.ErrNoBucket, exitPreflight, "Make the bucket, or check its name in --warehouse."},
	{object.ErrNoCredentials, exitPreflight, ""},
	{object.ErrUnconditional, exitPreflight, "Choose another store, or a folder, for --warehouse."},
	{object.ErrUnordered, exitPreflight, "Choose another store, or a folder, for --warehouse."},
	{object.ErrUnreachable, exitFailure, ""},
	{fs.ErrPermission, exitPreflight, ""},
}

// explain gives the exit code for an error, and its sentences for people.
func explain(err error) (code int, text string) {
	var refusal *lake.Refusal
	var usage *usageError
	var setting *config.Error
	var said *saidError
	var unmet *preflightError
	switch {
	case err == nil:
		return exitOK, ""
	case errors.As(err, &said):
		return said.code, ""
	case errors.As(err, &refusal):
		return refusal.Code, refusal.Error()
	case errors.As(err, &unmet):
		return exitPreflight, unmet.Error()
	case errors.As(err, &usage), errors.As(err, &setting):
		return exitUsage, err.Error()
	case errors.Is(err, context.Canceled):
		return exitFailure, "stopped"
	}
	for _, r := range reactions {
		if !errors.Is(err, r.is) {
			continue
		}
		text = oneLine(err)
		if r.fix != "" {
			text = strings.TrimSuffix(text, ".") + ". " + r.fix
		}
		return r.code, text
	}
	return exitFailure, oneLine(err)
}

// oneLine joins the lines of an error (one for each address that was tried)
// and leaves out those that say the same again.
func oneLine(err error) string {
	var parts []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(parts, line) {
			parts = append(parts, line)
		}
	}
	text := strings.Join(parts, "; ")
	return strings.ReplaceAll(text, ":; ", ": ")
}

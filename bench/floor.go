package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"
)

// copyFloor is the time that one connection takes to send a table in COPY's
// binary form to nobody.
func (r *rig) copyFloor(ctx context.Context, table string) (time.Duration, error) {
	return r.timed(ctx, "psql", "-X", "-q", "-d", r.url, "-c", "copy "+table+" to stdout (format binary)")
}

// floorSlot makes a slot that keeps the changes to come for receiveFloor.
func (r *rig) floorSlot(ctx context.Context, name string) error {
	return r.exec(ctx, fmt.Sprintf("select pg_create_logical_replication_slot('%s', 'pgoutput')", name))
}

// receiveFloor is the time that pg_recvlogical takes to receive, for nobody, a
// slot's changes up to an LSN, asked for as firn asks; the slot is dropped.
func (r *rig) receiveFloor(ctx context.Context, slot, publication, end string) (time.Duration, error) {
	took, err := r.timed(ctx, "pg_recvlogical", "-d", r.url, "-S", slot, "--start", "--no-loop", "-f", "-", "-E", end,
		"-o", "proto_version=2", "-o", "streaming=on", "-o", "publication_names="+publication)
	if err != nil {
		return 0, err
	}
	return took, r.exec(ctx, fmt.Sprintf("select pg_drop_replication_slot('%s')", slot))
}

// timed runs a program to its end; its output goes to /dev/null.
func (r *rig) timed(ctx context.Context, name string, args ...string) (time.Duration, error) {
	path, err := r.program(name)
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("run %s: %w: %s", name, err, stderr.Bytes())
	}
	return time.Since(began), nil
}

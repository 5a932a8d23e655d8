package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
)

// Machine is where a result was measured, and on what.
type Machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	MemoryGB int    `json:"memory_gb"`
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	Postgres string `json:"postgres"`
	MinIO    string `json:"minio"`
	DuckDB   string `json:"duckdb"`
	Commit   string `json:"commit"` // of firn; with + where the checkout has changes
}

func thisMachine(ctx context.Context, r *rig) (Machine, error) {
	m := Machine{
		CPU: procField("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Go: runtime.Version(),
		MinIO: toolVersion("minio"), Commit: commit(),
	}
	var kb int
	if _, err := fmt.Sscan(procField("/proc/meminfo", "MemTotal"), &kb); err != nil {
		return m, fmt.Errorf("read the size of memory: %w", err)
	}
	m.MemoryGB = (kb + 1<<19) >> 20
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return m, fmt.Errorf("read the kernel's version: %w", err)
	}
	m.Kernel = strings.TrimSpace(string(kernel))
	if err := r.conn.QueryRow(ctx, "show server_version").Scan(&m.Postgres); err != nil {
		return m, fmt.Errorf("ask Postgres for its version: %w", err)
	}
	v, err := r.duckdb.Try(ctx, "select version() as v")
	if err != nil {
		return m, fmt.Errorf("ask DuckDB for its version: %w", err)
	}
	m.DuckDB = strings.TrimPrefix(v.Value(), "v")
	return m, nil
}

// procField is the value of "name : value" in a file of /proc, "" without one.
func procField(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// toolVersion is a pin of testdata/tools/versions.txt, for people.
func toolVersion(name string) string {
	b, err := os.ReadFile("testdata/tools/versions.txt")
	if err != nil {
		return "unknown" // not run from the checkout's root
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name {
			return f[2]
		}
	}
	return "unknown"
}

// commit is that of the checkout when firn was built, "unknown" outside one.
var commit = sync.OnceValue(func() string {
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	at := strings.TrimSpace(string(out))
	changes, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no", "--", "*.go", "go.mod").Output()
	if err != nil || len(changes) > 0 {
		at += "+"
	}
	return at
})

package laketest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// staticcheckTool is not for tests: .ci/run lints with it.
var staticcheckTool = GoProgram("staticcheck")

// promtoolTool takes promtool out of Debian's package, which any user may
// download and unpack; its Go module does not build by go install.
var promtoolTool = &Tool{
	Name: "promtool",
	Get:  "on Debian or Ubuntu: apt-get update, then go run ./lake/laketest/fetch promtool; elsewhere put promtool on PATH",
	pins: func() ([]string, error) { return []string{"prometheus"}, nil },
	build: func(ctx context.Context, dir string, progress io.Writer) error {
		work, err := os.MkdirTemp("", "promtool-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		// The unprivileged user that apt drops to must write here.
		if err := os.Chmod(work, 0o777); err != nil {
			return err
		}
		download := exec.CommandContext(ctx, "apt-get", "download", "prometheus")
		download.Dir = work
		if err := run(ctx, download, progress); err != nil {
			return fmt.Errorf("%w (the lists may be old: apt-get update)", err)
		}
		debs, err := filepath.Glob(filepath.Join(work, "prometheus_*.deb"))
		if err != nil || len(debs) != 1 {
			return fmt.Errorf("find the downloaded package: %v, %w", debs, err)
		}
		if err := run(ctx, exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], filepath.Join(work, "root")), progress); err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(work, "root", "usr", "bin", "promtool"))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "promtool"), b, 0o755)
	},
}

// Promtool gives the path of Prometheus' promtool: the one on PATH, else one
// unpacked from Debian's package.
func Promtool(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	Short(t, "no promtool")
	return filepath.Join(need(t, promtoolTool), "promtool")
}

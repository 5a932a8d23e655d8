package laketest

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPromtool(t *testing.T) {
	check := func(metrics string) (string, error) {
		cmd := exec.Command(Promtool(t), "check", "metrics")
		cmd.Stdin = strings.NewReader(metrics)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := check("# HELP firn_x_total X.\n# TYPE firn_x_total counter\nfirn_x_total 1\n")
	require.NoError(t, err, out)
	out, err = check("# TYPE firn_x counter\nfirn_x 1\n")
	require.Error(t, err, out)
	require.Contains(t, out, "firn_x")
}

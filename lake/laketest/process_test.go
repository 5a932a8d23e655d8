package laketest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestNothingOutlivesAKill kills a test process: its children must die with it,
// and the next process must sweep its folder.
func TestNothingOutlivesAKill(t *testing.T) {
	if os.Getenv("FIRN_TEST_VICTIM") != "" {
		dir, err := SharedDir("victim")
		require.NoError(t, err)
		child := exec.Command("sleep", "600")
		require.NoError(t, Spawn(child))
		fmt.Printf("victim %d %s\n", child.Process.Pid, dir)
		time.Sleep(time.Minute)
		return
	}
	t.Setenv("TMPDIR", t.TempDir())

	victim := func() (cmd *exec.Cmd, child int, dir string) {
		cmd = exec.Command(os.Args[0], "-test.run=^TestNothingOutlivesAKill$")
		cmd.Env = append(os.Environ(), "FIRN_TEST_VICTIM=1")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, Spawn(cmd))
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "victim ") {
				_, err := fmt.Sscanf(lines.Text(), "victim %d %s", &child, &dir)
				require.NoError(t, err)
				return cmd, child, dir
			}
		}
		require.Fail(t, "the process said nothing")
		return
	}
	kill := func(cmd *exec.Cmd) {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}

	first, child, swept := victim()
	kill(first)
	require.Eventually(t, func() bool { return syscall.Kill(child, 0) == syscall.ESRCH || zombie(child) },
		10*time.Second, 10*time.Millisecond, "the child lives on")
	require.DirExists(t, swept)

	second, _, kept := victim()
	defer kill(second)
	require.NoDirExists(t, swept)
	third, _, _ := victim()
	defer kill(third)
	require.DirExists(t, kept, "the folder of a process that lives is not swept")
}

// zombie says whether a process is dead, but not yet taken note of by the one
// that inherited it.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(after, "Z")
}

func TestJavaHome(t *testing.T) {
	t.Setenv("JAVA_HOME", "")
	t.Setenv("JAVA99_HOME", "")
	_, err := javaHome(99)
	require.ErrorContains(t, err, "set JAVA99_HOME")

	home := t.TempDir()
	require.NoError(t, os.MkdirAll(home+"/bin", 0o755))
	require.NoError(t, os.WriteFile(home+"/bin/javac", nil, 0o755))
	require.NoError(t, os.WriteFile(home+"/release", []byte("X=\"1\"\nJAVA_VERSION=\"99.0.1\"\n"), 0o644))
	t.Setenv("JAVA99_HOME", home)
	got, err := javaHome(99)
	require.NoError(t, err)
	require.Equal(t, home, got)
	require.Equal(t, 8, javaMajor("1.8.0_392"))
	require.Equal(t, 25, javaMajor("25"))
	require.Equal(t, 0, javaMajor(""))
}

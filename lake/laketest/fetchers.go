package laketest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// GoProgram is a Go program at its pin in testdata/tools/versions.txt; its
// folder holds the binary of that name.
func GoProgram(name string) *Tool {
	return &Tool{
		Name: name,
		Get:  "go run ./lake/laketest/fetch " + name + " (builds it by go install; needs the Go module proxy)",
		pins: func() ([]string, error) {
			at, err := goPin(name)
			return []string{at}, err
		},
		build: func(ctx context.Context, dir string, progress io.Writer) error {
			at, err := goPin(name)
			if err != nil {
				return err
			}
			cmd := exec.CommandContext(ctx, "go", "install", at)
			cmd.Dir = dir // outside any module: the program's own go.mod counts
			cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=", "GOWORK=off")
			return run(ctx, cmd, progress)
		},
	}
}

// goPin reads package@version of a program in versions.txt.
func goPin(name string) (string, error) {
	path, text, err := pinFile("versions.txt")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name {
			return f[1] + "@" + f[2], nil
		}
	}
	return "", fmt.Errorf("find %s in %s: no such line", name, path)
}

// pythonTool is a virtual environment made of testdata/tools/SUB/requirements.txt.
func pythonTool(name, sub string) *Tool {
	return &Tool{
		Name: name,
		Get:  "go run ./lake/laketest/fetch " + name + " (needs python3 with its venv module, and PyPI)",
		pins: func() ([]string, error) {
			_, text, err := pinFile(sub, "requirements.txt")
			if err != nil {
				return nil, err
			}
			out, err := exec.Command("python3", "-c", "import sys; print(sys.version_info[:2], sys.base_prefix)").Output()
			if err != nil {
				return nil, fmt.Errorf("run python3: %w", err)
			}
			return []string{text, string(out)}, nil
		},
		build: func(ctx context.Context, dir string, progress io.Writer) error {
			file, _, err := pinFile(sub, "requirements.txt")
			if err != nil {
				return err
			}
			if err := run(ctx, exec.CommandContext(ctx, "python3", "-m", "venv", dir), progress); err != nil {
				return fmt.Errorf("%w (Debian: apt-get install python3-venv)", err)
			}
			// By module, not by script: the scripts name a folder that is
			// about to be renamed. That is also how all else here runs Python.
			return run(ctx, exec.CommandContext(ctx, python(dir), "-m", "pip", "install", "--quiet", "-r", file), progress)
		},
	}
}

// python is the interpreter of a pythonTool's folder.
func python(dir string) string { return filepath.Join(dir, "bin", "python") }

// mavenTool holds the jars of testdata/tools/SUB/pom.xml in lib/, and the
// classes of Java sources beside the pom, if any, in classes/.
func mavenTool(name, sub string, javaVersion int, sources ...string) *Tool {
	return &Tool{
		Name:      name,
		Get:       fmt.Sprintf("go run ./lake/laketest/fetch %s (needs mvn, a JDK of version %d or newer, and Maven Central)", name, javaVersion),
		exclusive: "maven", // Maven 3's local repository takes one writer
		pins: func() ([]string, error) {
			var pins []string
			for _, f := range append([]string{"pom.xml"}, sources...) {
				_, text, err := pinFile(sub, f)
				if err != nil {
					return nil, err
				}
				pins = append(pins, text)
			}
			return pins, nil
		},
		build: func(ctx context.Context, dir string, progress io.Writer) error {
			jdk, err := javaHome(javaVersion)
			if err != nil {
				return err
			}
			pom, _, err := pinFile(sub, "pom.xml")
			if err != nil {
				return err
			}
			cmd := exec.CommandContext(ctx, "mvn", "-B", "-q", "-f", pom, "dependency:copy-dependencies",
				"-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(dir, "lib"))
			if err := run(ctx, cmd, progress); err != nil {
				return err
			}
			if len(sources) == 0 {
				return nil
			}
			args := []string{"-nowarn", "-cp", filepath.Join(dir, "lib", "*"), "-d", filepath.Join(dir, "classes")}
			for _, f := range sources {
				path, _, err := pinFile(sub, f)
				if err != nil {
					return err
				}
				args = append(args, path)
			}
			return run(ctx, exec.CommandContext(ctx, filepath.Join(jdk, "bin", "javac"), args...), progress)
		},
	}
}

// run runs a step of a build at low priority and reports every half minute that
// it is still at it. Its output is shown only in the error.
func run(ctx context.Context, cmd *exec.Cmd, progress io.Writer) error {
	what := filepath.Base(cmd.Path) + " " + strings.Join(cmd.Args[1:], " ")
	if len(what) > 160 {
		what = what[:160] + "…"
	}
	if nice, err := exec.LookPath("nice"); err == nil && cmd.Err == nil {
		cmd.Args = append([]string{"nice", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = nice
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	say(progress, "  %s", what)
	if err := Spawn(cmd); err != nil {
		return fmt.Errorf("run %s: %w", what, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	began := time.Now()
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			say(progress, "  still at it after %.0f s: %s", time.Since(began).Seconds(), what)
		case err := <-done:
			if err == nil {
				return nil
			}
			return fmt.Errorf("run %s: %w", what, errors.Join(err, ctx.Err(), errors.New(tail(out.Bytes()))))
		}
	}
}

// tail is the end of a program's output, where it says what went wrong.
func tail(b []byte) string {
	b = bytes.TrimSpace(b)
	if len(b) > 4000 {
		b = append([]byte("… "), b[len(b)-4000:]...)
	}
	return string(b)
}

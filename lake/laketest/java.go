package laketest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// javaHome finds a JDK (with javac) of version want or, failing that, the
// oldest newer one: JAVA<want>_HOME, JAVA_HOME, the one on PATH, /usr/lib/jvm.
func javaHome(want int) (string, error) {
	homes := []string{os.Getenv(fmt.Sprintf("JAVA%d_HOME", want)), os.Getenv("JAVA_HOME")}
	if p, err := exec.LookPath("javac"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			homes = append(homes, filepath.Dir(filepath.Dir(p)))
		}
	}
	more, err := filepath.Glob("/usr/lib/jvm/*")
	if err != nil {
		return "", err
	}
	best, bestVersion := "", 0
	var seen []string
	for _, home := range append(homes, more...) {
		v := javaVersion(home)
		if v == 0 || !exists(filepath.Join(home, "bin", "javac")) {
			continue
		}
		seen = append(seen, fmt.Sprintf("%s (%d)", home, v))
		if v >= want && (best == "" || v < bestVersion) {
			best, bestVersion = home, v
		}
	}
	if best == "" {
		return "", fmt.Errorf("find a JDK of version %d or newer (set JAVA%d_HOME): found %s",
			want, want, strings.Join(append(seen, "no other"), ", "))
	}
	return best, nil
}

// javaVersion reads a JDK's feature version; 0 where home is none.
func javaVersion(home string) int {
	if home == "" {
		return 0
	}
	b, err := os.ReadFile(filepath.Join(home, "release"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), `JAVA_VERSION="`); ok {
			return javaMajor(strings.TrimSuffix(v, `"`))
		}
	}
	return 0
}

// javaMajor is the feature version in 25.0.1, 17 or 1.8.0_392; 0 in none.
func javaMajor(version string) int {
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "1."), ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		return 0
	}
	return n
}

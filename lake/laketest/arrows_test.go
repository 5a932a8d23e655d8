package laketest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// arrows says which of our packages each may import; "…" means any but tests'
// own. What is not listed belongs to the entry that its path begins with
// (cmd/firn/internal/demo to cmd/firn). Imports point inward: a leaf knows
// nothing of those who use it, and only cmd/firn wires things together.
var arrows = map[string][]string{
	"wal":            {},
	"wal/slot":       {"wal"},
	"wal/spool":      {"wal"},
	"wal/localpg":    {},
	"lake":           {"wal", "wal/spool", "lake/column", "lake/index", "lake/partition"},
	"lake/column":    {"wal"},
	"lake/index":     {},
	"lake/partition": {},
	"lake/snapshot":  {"lake", "lake/column", "lake/partition", "wal"},
	"lake/object":    {},
	"lake/audit":     {"lake", "lake/column", "lake/object", "lake/snapshot", "wal", "wal/slot", "catalog"},
	"compaction":     {"lake", "wal"},
	"catalog":        {"wal"},
	"cmd/firn":       {"…"},
	"lake/laketest":  {"…"},
	"bench":          {"…"},
}

// forTests are packages that the program itself must not contain.
var forTests = []string{"lake/laketest", "bench"}

// owner is the longest entry of arrows that a package's path begins with.
func owner(pkg string) string {
	for p := pkg; p != "."; p = filepath.Dir(p) {
		if _, ok := arrows[p]; ok {
			return p
		}
	}
	return ""
}

func TestImportArrows(t *testing.T) {
	root, err := moduleRoot()
	require.NoError(t, err)
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)

	seen := 0
	for d := json.NewDecoder(bytes.NewReader(out)); ; seen++ {
		var p struct {
			ImportPath string
			Imports    []string
		}
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		pkg := strings.TrimPrefix(p.ImportPath, "firn/")
		from := owner(pkg)
		if from == "" {
			t.Errorf("%s: no arrow names it; a new package needs its line here and in the layout", pkg)
			continue
		}
		for _, path := range p.Imports {
			imported, ours := strings.CutPrefix(path, "firn/")
			if !ours {
				if from == "wal" && strings.Contains(path, ".") {
					t.Errorf("wal imports %s, but is to need the standard library only", path)
				}
				continue
			}
			to := owner(imported)
			switch {
			case to == from:
			case slices.Contains(forTests, to):
				if !slices.Contains(forTests, from) {
					t.Errorf("%s imports %s, which is for tests", pkg, imported)
				}
			case slices.Contains(arrows[from], "…"), slices.Contains(arrows[from], to):
			default:
				t.Errorf("%s imports %s: an arrow that points the wrong way", pkg, imported)
			}
		}
	}
	require.Greater(t, seen, 8, "go list found the packages")
}

func TestTopLevelFolders(t *testing.T) {
	root, err := moduleRoot()
	require.NoError(t, err)
	allowed := []string{"wal", "lake", "compaction", "catalog", "cmd", "bench", "testdata"}
	ignore, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	require.NoError(t, err)
	for lines := bufio.NewScanner(bytes.NewReader(ignore)); lines.Scan(); {
		allowed = append(allowed, strings.Trim(lines.Text(), "/"))
	}
	entries, err := os.ReadDir(root)
	require.NoError(t, err)
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s: a top-level folder that the layout does not have", e.Name())
		}
	}
}

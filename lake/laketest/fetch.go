package laketest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// tools are those that tests ask for, slow ones last.
var tools = []*Tool{readersTool, promtoolTool, sparkJarsTool, sparkTool, icebergRESTTool, trinoTool, staticcheckTool, minioTool}

// postgresMajors are the versions that tests run against.
var postgresMajors = []string{"14", "15", "16", "17", "18"}

// Fetch makes the named tools ready, all of them where none is named, and gives
// their folders; the Postgres versions go by the name postgres. It tries each
// and joins the errors.
func Fetch(ctx context.Context, progress io.Writer, names ...string) ([]string, error) {
	known := []string{"postgres"}
	for _, tool := range tools {
		known = append(known, tool.Name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("fetch %s: no such tool; there are %s", name, strings.Join(known, ", "))
		}
	}
	wanted := func(name string) bool { return len(names) == 0 || slices.Contains(names, name) }

	var dirs []string
	var errs []error
	if wanted("postgres") {
		for _, version := range postgresMajors {
			dir, err := postgresBin(version)
			if err != nil {
				errs = append(errs, fmt.Errorf("make Postgres %s ready for tests: %w", version, err))
				continue
			}
			dirs = append(dirs, dir)
		}
	}
	for _, tool := range tools {
		if wanted(tool.Name) {
			dir, err := tool.Ensure(ctx, progress)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			dirs = append(dirs, dir)
		}
	}
	return dirs, errors.Join(errs...)
}

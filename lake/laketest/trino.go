package laketest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// trinoJava is what Trino's class files ask for.
const trinoJava = 25

var trinoTool = mavenTool("trino", "trino", trinoJava, "TrinoServer.java")

// TrinoEngine is the one Trino of the process; queries run in UTC.
type TrinoEngine struct {
	URL    string
	client http.Client
}

var sharedTrino = sync.OnceValues(startTrino)

// Trino gives the process's Trino, starting it at the first call (half a
// minute). Only the package lake/laketest/engines calls it.
func Trino(t testing.TB) *TrinoEngine {
	t.Helper()
	Short(t, "no Trino")
	need(t, trinoTool)
	s, err := sharedTrino()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func startTrino() (*TrinoEngine, error) {
	dir, err := trinoTool.Ensure(context.Background(), nil)
	if err != nil {
		return nil, err
	}
	java, err := javaHome(trinoJava)
	if err != nil {
		return nil, err
	}
	scratch, err := SharedDir("trino")
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(java, "bin", "java"), "-Xmx2g", "-XX:TieredStopAtLevel=1",
		"--add-modules=jdk.incubator.vector", "--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED",
		"-Djdk.attach.allowAttachSelf=true", "-Duser.timezone=UTC", "-Djava.io.tmpdir="+scratch,
		"-cp", filepath.Join(dir, "lib", "*")+string(os.PathListSeparator)+filepath.Join(dir, "classes"), "TrinoServer", fmt.Sprint(port))
	cmd.Dir = scratch
	log := &tailWriter{max: 16 << 10}
	// Trino's main reads it until its end, which this process's end is too.
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout // where Trino's logger takes standard output too
	if err := Spawn(cmd); err != nil {
		return nil, fmt.Errorf("start Trino: %w", err)
	}
	ready := make(chan error, 1)
	go func() {
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			fmt.Fprint(log, line)
			if strings.Contains(line, "READY") { // its logger puts more before it
				ready <- nil
			}
			if err != nil {
				select {
				case ready <- errors.Join(err, cmd.Wait()):
				default:
				}
				return
			}
		}
	}()
	select {
	case err = <-ready:
	case <-time.After(5 * time.Minute):
		err = errors.Join(errors.New("no READY within five minutes"), cmd.Process.Kill())
	}
	if err != nil {
		return nil, fmt.Errorf("start Trino: %w; it wrote: %s", err, log)
	}
	return &TrinoEngine{URL: fmt.Sprintf("http://127.0.0.1:%d", port)}, nil
}

// Catalog makes a REST catalog known by a name until the test ends. s may be
// nil; properties are Trino's: iceberg.rest-catalog.uri, .warehouse …
func (e *TrinoEngine) Catalog(t testing.TB, name string, s *MinIOServer, properties map[string]string) {
	t.Helper()
	all := map[string]string{"iceberg.catalog.type": "rest"}
	if s != nil {
		maps.Copy(all, map[string]string{"fs.native-s3.enabled": "true", "s3.endpoint": s.Endpoint, "s3.region": s.Region,
			"s3.path-style-access": "true", "s3.aws-access-key": s.AccessKey, "s3.aws-secret-key": s.SecretKey})
	}
	maps.Copy(all, properties)
	var with []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		with = append(with, QuoteName(k)+" = "+Quote(all[k]))
	}
	e.Query(t, "CREATE CATALOG "+QuoteName(name)+" USING iceberg WITH ("+strings.Join(with, ", ")+")")
	t.Cleanup(func() { e.Query(t, "DROP CATALOG "+QuoteName(name)) })
}

// Query is Try for SQL that must work.
func (e *TrinoEngine) Query(t testing.TB, sql string) *Result {
	t.Helper()
	r, err := e.Try(context.Background(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return r
}

// trinoPage is one answer of Trino's client protocol.
type trinoPage struct {
	NextURI string `json:"nextUri"`
	Columns []struct {
		Name, Type string
	}
	Data  [][]any
	Error *struct{ Message, ErrorName string }
}

// Try runs one SQL statement and gives Trino's error as it is.
func (e *TrinoEngine) Try(ctx context.Context, sql string) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	page, err := e.request(ctx, http.MethodPost, e.URL+"/v1/statement", sql)
	r := &Result{}
	for err == nil {
		if page.Error != nil {
			return nil, fmt.Errorf("Trino: %s: %s", page.Error.ErrorName, page.Error.Message)
		}
		if r.Columns == nil {
			for _, c := range page.Columns {
				r.Columns = append(r.Columns, Column{c.Name, trinoType(c.Type)})
			}
		}
		for _, raw := range page.Data {
			row := make([]string, len(raw))
			for i, v := range raw {
				if row[i], err = canonical(r.Columns[i].Type, trinoValue(r.Columns[i].Type, v)); err != nil {
					return nil, fmt.Errorf("read column %s: %w", r.Columns[i].Name, err)
				}
			}
			r.Rows = append(r.Rows, row)
		}
		if page.NextURI == "" {
			return r, nil
		}
		page, err = e.request(ctx, http.MethodGet, page.NextURI, "")
	}
	return nil, fmt.Errorf("ask Trino: %w", err)
}

func (e *TrinoEngine) request(ctx context.Context, method, url, body string) (*trinoPage, error) {
	for {
		req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("X-Trino-User", "test")
		req.Header.Set("X-Trino-Time-Zone", "UTC")
		// Without it types with a precision come without theirs.
		req.Header.Set("X-Trino-Client-Capabilities", "PARAMETRIC_DATETIME")
		resp, err := e.client.Do(req)
		if err != nil {
			return nil, err
		}
		var page trinoPage
		d := json.NewDecoder(resp.Body)
		d.UseNumber()
		switch resp.StatusCode {
		case http.StatusOK:
			err = d.Decode(&page)
		case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
			// The protocol says: ask again.
		default:
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 4000))
			err = fmt.Errorf("%s: %s", resp.Status, text)
		}
		resp.Body.Close()
		if err != nil || resp.StatusCode == http.StatusOK {
			return &page, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

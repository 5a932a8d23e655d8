package laketest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Readme is README's commands and what they talk about: a Postgres with a shop,
// a MinIO, and a firn started as README says. Only addresses, keys and the
// name of the bucket are put in place of README's.
type Readme struct {
	blocks  map[string]string
	replace *strings.Replacer
	env     []string
	log     *tailWriter
}

var readmeBlock = regexp.MustCompile("(?s)<!-- test: ([a-z-]+) -->\n```[a-z]*\n(.*?)```")

// StartReadme starts it all and ends it after the test.
func StartReadme(t testing.TB) *Readme {
	t.Helper()
	s3 := MinIO(t)
	pg := Postgres(t, "")
	ctx := t.Context()
	readmeSQL(t, pg.URL("postgres"), "CREATE ROLE firn LOGIN REPLICATION", "CREATE DATABASE shop OWNER firn")
	owner, err := url.Parse(pg.URL("shop"))
	if err != nil {
		t.Fatal(err)
	}
	owner.User = url.User("firn")
	readmeSQL(t, owner.String(), `CREATE TABLE orders (id bigint PRIMARY KEY, status text, total numeric(12,2), placed_at timestamptz DEFAULT now());
		INSERT INTO orders SELECT i, (ARRAY['placed', 'paid', 'shipped'])[1 + i % 3], i * 1.25 FROM generate_series(1, 3000) i`)

	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	bin, err := FirnBinary()
	if err != nil {
		t.Fatal(err)
	}
	r := &Readme{
		blocks: map[string]string{}, log: &tailWriter{max: 16 << 10},
		replace: strings.NewReplacer("127.0.0.1:5432", owner.Host, "127.0.0.1:9000", s3.Host, "127.0.0.1:8181", listen,
			"my-key", s3.AccessKey, "my-secret", s3.SecretKey, "s3://lake/", "s3://"+s3.Bucket(t)+"/"),
		env: []string{"PATH=" + filepath.Dir(bin) + ":" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "FIRN_LISTEN=" + listen, "FIRN_URL=http://" + listen, "AWS_EC2_METADATA_DISABLED=true"},
	}
	for _, m := range readmeBlock.FindAllStringSubmatch(string(text), -1) {
		r.blocks[m[1]] = m[2]
	}
	r.start(t)
	deadline := time.Now().Add(time.Minute)
	for {
		if out, err := r.shell(ctx, "firn wait && firn status"); err == nil && strings.Contains(out, "\nstreaming\n") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("README's firn does not stream: %v\n%s\nIt says: %s", err, out, r.log)
		}
		time.Sleep(100 * time.Millisecond)
	}
	readmeSQL(t, owner.String(), "UPDATE orders SET status = 'paid' WHERE id % 10 = 0", "DELETE FROM orders WHERE id % 7 = 0")
	if out, err := r.shell(ctx, "firn wait"); err != nil {
		t.Fatalf("firn wait: %v\n%s", err, out)
	}
	return r
}

// Block is a block as README prints it, with this test's addresses.
func (r *Readme) Block(t testing.TB, name string) string {
	t.Helper()
	b, ok := r.blocks[name]
	if !ok {
		t.Fatalf("README has no block <!-- test: %s -->", name)
	}
	return r.replace.Replace(b)
}

// Shell runs commands in the environment that README's first block sets.
func (r *Readme) Shell(t testing.TB, commands string) string {
	t.Helper()
	out, err := r.shell(t.Context(), commands)
	if err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
	return out
}

func (r *Readme) shell(ctx context.Context, commands string) (string, error) {
	exports := strings.Replace(r.replace.Replace(r.blocks["run"]), "\nfirn run\n", "\n", 1)
	cmd := exec.CommandContext(ctx, "bash", "-ec", exports+commands)
	cmd.Env = r.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// start runs README's first block until the end of the test.
func (r *Readme) start(t testing.TB) {
	// bash becomes firn, so that a signal reaches it.
	script := strings.Replace(r.Block(t, "run"), "\nfirn run\n", "\nexec firn run\n", 1)
	cmd := exec.Command("bash", "-ec", script)
	cmd.Env, cmd.Stdout, cmd.Stderr = r.env, r.log, r.log
	if err := Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended, as the error below says
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("README's firn ended: %v\n%s", err, r.log)
			}
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("README's firn does not stop\n%s", r.log)
		}
	})
}

func readmeSQL(t testing.TB, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// FirnBinary builds the program once for this process.
var FirnBinary = sync.OnceValues(func() (string, error) {
	dir, err := SharedDir("bin")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "firn")
	cmd := exec.Command("go", "build", "-o", path, "firn/cmd/firn")
	if cmd.Dir, err = moduleRoot(); err != nil {
		return "", err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build firn: %w\n%s", err, out)
	}
	return path, nil
})

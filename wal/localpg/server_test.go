package localpg

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func bin(t *testing.T, version string) string {
	t.Helper()
	dir, err := Find(t.Context(), "", version)
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("no Postgres %s: %v", version, err)
	}
	require.NoError(t, err)
	return dir
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	if o.BinDir == "" {
		o.BinDir = bin(t, "")
	}
	s, err := Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func query(t *testing.T, s *Server, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	rows, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	require.NoError(t, err)
	last := rows[len(rows)-1]
	if len(last.Rows) == 0 {
		return ""
	}
	return string(last.Rows[0][0])
}

func TestLifecycle(t *testing.T) {
	var log bytes.Buffer
	s := start(t, Options{Settings: map[string]string{"application_name": "it's"}, Log: &log})
	require.Equal(t, "logical", query(t, s, "SHOW wal_level"))
	require.Equal(t, "off", query(t, s, "SHOW fsync"))
	require.Equal(t, "it's", query(t, s, "SHOW application_name"))
	query(t, s, "CREATE TABLE t (v int); INSERT INTO t VALUES (7)")
	port := s.Port()

	require.NoError(t, s.Configure(map[string]string{"max_connections": "41"}))
	require.NoError(t, s.Restart(t.Context()))
	require.Equal(t, port, s.Port())
	require.Equal(t, "41", query(t, s, "SHOW max_connections"))

	done := s.Done()
	require.NoError(t, s.Kill())
	<-done
	require.Empty(t, serverProcesses(s.Dir()))
	require.True(t, portFree(port))
	require.NoError(t, s.Restart(t.Context()))
	require.Equal(t, "7", query(t, s, "SELECT v FROM t"))

	require.NoError(t, s.Stop(t.Context()))
	require.NoError(t, s.Stop(t.Context()), "stopping twice is harmless")
	require.Error(t, s.Reload())
	<-s.Done()
	temp := s.tempDir
	require.NoError(t, s.Close())
	require.NoDirExists(t, temp)
	require.Contains(t, log.String(), "database system is ready")
}

func TestKillEndsBusyBackends(t *testing.T) {
	if testing.Short() {
		t.Skip("one server is enough")
	}
	s := start(t, Options{})
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	go conn.Exec(t.Context(), "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$") // ends with the server
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, s.Kill())
	require.Empty(t, serverProcesses(s.Dir()))
	require.NoError(t, s.Restart(t.Context()))
}

func TestRestartAfterADeath(t *testing.T) {
	if testing.Short() {
		t.Skip("one server is enough")
	}
	s := start(t, Options{})
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	require.NoError(t, syscall.Kill(s.proc.pid, syscall.SIGKILL))
	<-s.Done()
	require.NoError(t, s.Restart(t.Context()))
	require.Equal(t, "1", query(t, s, "SELECT 1"))
}

func TestStopEscalates(t *testing.T) {
	if testing.Short() {
		t.Skip("Postgres itself waits five seconds")
	}
	s := start(t, Options{StopTimeout: 300 * time.Millisecond})
	// A stopped backend can't answer a fast shutdown, nor an immediate one.
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	require.NoError(t, syscall.Kill(int(conn.PgConn().PID()), syscall.SIGSTOP))
	require.NoError(t, s.Stop(t.Context()))
	require.Empty(t, serverProcesses(s.Dir()))
}

func TestHBA(t *testing.T) {
	if testing.Short() {
		t.Skip("one server is enough")
	}
	s := start(t, Options{HBA: []string{"host all postgres 127.0.0.1/32 trust", "host all all 127.0.0.1/32 scram-sha-256"}})
	query(t, s, "CREATE ROLE app LOGIN PASSWORD 'right'")
	_, err := pgx.Connect(t.Context(), strings.Replace(s.URL("postgres"), "postgres@", "app:wrong@", 1))
	require.ErrorContains(t, err, "password authentication failed")
}

func TestErrors(t *testing.T) {
	if testing.Short() {
		t.Skip("one server is enough")
	}
	_, err := Start(t.Context(), Options{BinDir: bin(t, ""), Settings: map[string]string{"shared_bufers": "1"}})
	require.ErrorContains(t, err, "shared_bufers", "the log's end says what is wrong")

	foreign := filepath.Join(os.TempDir(), "localpg-test-"+strconv.Itoa(os.Getpid()))
	require.NoError(t, os.Mkdir(foreign, 0o755))
	defer os.RemoveAll(foreign)
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "PG_VERSION"), []byte("15\n"), 0o644))
	_, err = Start(t.Context(), Options{BinDir: bin(t, ""), Dir: foreign})
	require.ErrorContains(t, err, "not made here")
	require.FileExists(t, filepath.Join(foreign, "PG_VERSION"))

	s := start(t, Options{})
	_, err = Start(t.Context(), Options{BinDir: bin(t, ""), Port: s.Port()})
	require.ErrorContains(t, err, "could not bind")

	if os.Geteuid() == 0 {
		closed := filepath.Join(t.TempDir(), "data") // mode 0700 above
		_, err = Start(t.Context(), Options{BinDir: bin(t, ""), Dir: closed})
		require.ErrorContains(t, err, "may not enter")
	}

	_, err = Find(t.Context(), "", "9.6")
	require.ErrorContains(t, err, "want a major version")
	_, err = (&Finder{Version: "99"}).Find(t.Context())
	require.ErrorIs(t, err, ErrUnavailable)
}

// TestDiesWithParent runs itself as the parent, and kills that.
func TestDiesWithParent(t *testing.T) {
	if os.Getenv("LOCALPG_PARENT") != "" {
		s, err := Start(t.Context(), Options{BinDir: bin(t, "")})
		require.NoError(t, err)
		os.Stdout.WriteString("DIR " + s.Dir() + "\n")
		select {}
	}
	if testing.Short() {
		t.Skip("starts a process of its own")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiesWithParent$")
	cmd.Env = append(os.Environ(), "LOCALPG_PARENT=1")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer cmd.Process.Kill()
	var dir string
	for buf := make([]byte, 4096); dir == ""; {
		n, err := out.Read(buf)
		require.NoError(t, err)
		if _, rest, ok := strings.Cut(string(buf[:n]), "DIR "); ok {
			dir = strings.TrimSpace(rest)
		}
	}
	require.NotEmpty(t, serverProcesses(dir))
	require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
	_, err = io.Copy(io.Discard, out)
	require.NoError(t, err)
	require.Error(t, cmd.Wait())
	again, err := Start(t.Context(), Options{BinDir: bin(t, ""), Dir: dir})
	require.NoError(t, err, "the next process can take the folder over at once")
	require.NoError(t, again.Stop(t.Context()))
	require.Eventually(t, func() bool { return len(serverProcesses(dir)) == 0 }, 10*time.Second, 20*time.Millisecond)

	// Its folder goes with the next start, once it is old enough.
	base := filepath.Dir(dir)
	old := time.Now().Add(-2 * time.Minute)
	require.NoError(t, os.Chtimes(base, old, old))
	require.NoError(t, sweepTemp(filepath.Dir(base)))
	require.NoDirExists(t, base)
}

// TestFetch fetches every pinned version once, then starts it.
func TestFetch(t *testing.T) {
	if testing.Short() {
		t.Skip("fetches binaries")
	}
	for major := range pins {
		version := strconv.Itoa(major)
		t.Run(version, func(t *testing.T) {
			f := Finder{Version: version}
			dir, err := f.fetch(t.Context(), major)
			if err != nil && os.Getenv("CI") == "" {
				t.Skipf("no Postgres %s: %v", version, err)
			}
			require.NoError(t, err)
			got, err := Major(t.Context(), dir)
			require.NoError(t, err)
			require.Equal(t, major, got)
			s := start(t, Options{BinDir: dir})
			require.Equal(t, version, strings.Split(query(t, s, "SHOW server_version"), ".")[0])
		})
	}
}

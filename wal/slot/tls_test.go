package slot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/wal/localpg"
)

// certificate writes a self-signed pair for 127.0.0.1 into dir, as the server
// wants its own: the key readable by nobody else.
func certificate(t testing.TB, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	fi, err := os.Stat(dir)
	require.NoError(t, err)
	for suffix, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		path := filepath.Join(dir, name+suffix)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
		st := fi.Sys().(*syscall.Stat_t)
		require.NoError(t, os.Chown(path, int(st.Uid), int(st.Gid)))
	}
}

func TestTLS(t *testing.T) {
	srv := ownServer(t, localpg.Options{HBA: []string{"hostssl all all 127.0.0.1/32 trust"}})
	certificate(t, srv.Dir(), "server")
	other := t.TempDir()
	certificate(t, other, "other")
	require.NoError(t, srv.Configure(map[string]string{"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}))
	require.NoError(t, srv.Reload())
	with := func(mode, root string) string {
		u, err := url.Parse(srv.URL("postgres"))
		require.NoError(t, err)
		q := url.Values{"sslmode": {mode}}
		if root != "" {
			q.Set("sslrootcert", root)
		}
		u.RawQuery = q.Encode()
		return u.String()
	}
	root := filepath.Join(srv.Dir(), "server.crt")
	require.Eventually(t, func() bool {
		s, err := Open(t.Context(), Options{URL: with("require", "")})
		if err == nil {
			s.Close()
		}
		return err == nil
	}, 10*time.Second, 50*time.Millisecond)

	_, err := Open(t.Context(), Options{URL: with("disable", "")})
	require.ErrorIs(t, err, ErrAuth, "the server wants TLS")
	_, err = Open(t.Context(), Options{URL: with("verify-full", filepath.Join(other, "other.crt"))})
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorContains(t, err, "certificate")
	for _, mode := range []string{"prefer", "require", "verify-ca", "verify-full"} {
		rc := root
		if mode == "prefer" || mode == "require" {
			rc = ""
		}
		s, err := Open(t.Context(), Options{URL: with(mode, rc)})
		require.NoError(t, err, mode)
		s.Close()
	}

	rows := 200_000
	if testing.Short() {
		rows = 20_000
	}
	s := openWith(t, Options{URL: with("verify-full", root)})
	c := dial(t, with("require", ""))
	start := fill(t, s, c, rows)
	d, cpu := drain(t, s, start, rows)
	t.Logf("stream over TLS: %d rows in %.2f s: %.0f rows/s, %.2f s of CPU per million", rows, d.Seconds(), float64(rows)/d.Seconds(), cpu.Seconds()*1e6/float64(rows))
	x := describe(t, s, "public.wide")
	sn, err := s.CreateSlot(t.Context(), s.o.Slot+"_tmp", true, names("public.wide"), LockOptions{})
	require.NoError(t, err)
	defer sn.Close()
	n := 0
	cp := copier(t, s, sn, x, 2)
	defer cp.Close()
	for _, r := range cp.Ranges {
		require.NoError(t, cp.Copy(t.Context(), []CopyColumn{{Name: "id"}, {Name: "g"}}, r, func([][]byte) error { n++; return nil }))
	}
	require.Equal(t, rows, n)
}

func TestCopySpeedAndAllocations(t *testing.T) {
	rows := 500_000
	if testing.Short() {
		rows = 50_000
	}
	url, c := newDatabase(t, sharedServer(t))
	s := open(t, url)
	fill(t, s, c, rows)
	x := describe(t, s, "public.wide")
	sn, err := s.CreateSlot(t.Context(), s.o.Slot+"_tmp", true, names("public.wide"), LockOptions{})
	require.NoError(t, err)
	defer sn.Close()
	var cols []CopyColumn
	for _, col := range x.Columns {
		cols = append(cols, CopyColumn{Name: col.Name})
	}
	n, bytes := 0, 0
	before, begin := cpuTime(t), time.Now()
	cp := copier(t, s, sn, x, 1)
	defer cp.Close()
	require.NoError(t, cp.Copy(t.Context(), cols, CTIDRange{}, func(row [][]byte) error {
		n++
		for _, v := range row {
			bytes += len(v)
		}
		return nil
	}))
	d := time.Since(begin)
	require.Equal(t, rows, n)
	t.Logf("binary COPY: %d rows of %d bytes in %.2f s: %.0f rows/s, %.2f s of CPU per million", n, bytes/n, d.Seconds(), float64(n)/d.Seconds(), (cpuTime(t)-before).Seconds()*1e6/float64(n))

	all := copyStream([][][]byte{{[]byte("12345678"), nil, []byte("text of some length")}})
	row := all[19 : len(all)-2]
	p := copyParser{row: make([][]byte, 3), begun: true, fn: func([][]byte) error { return nil }}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if err := p.feed(row); err != nil {
			t.Fatal(err)
		}
	}))
}

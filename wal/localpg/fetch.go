package localpg

import (
	"archive/tar"
	"archive/zip"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/ulikunitz/xz"
)

// mavenCentral has the zonky project's relocatable Postgres builds (initdb,
// pg_ctl and postgres only).
const mavenCentral = "https://repo1.maven.org/maven2"

// fetchLimit bounds one download and its unpacking.
const fetchLimit = 10 * time.Minute

// fetch returns the bin folder of the pinned build of major, downloading it
// unless the cache has it. A file lock lets one process at a time do so.
func (f *Finder) fetch(ctx context.Context, major int) (string, error) {
	platform, ok := platforms[runtime.GOOS+"/"+runtime.GOARCH]
	pin, known := pins[major]
	if !ok || !known || pin.sha256[platform] == "" {
		return "", fmt.Errorf("%w: PostgreSQL %d is not installed, and there are no pinned binaries of it for %s/%s; install it", ErrUnavailable, major, runtime.GOOS, runtime.GOARCH)
	}
	root := f.CacheDir
	if root == "" {
		var err error
		if root, err = DefaultCacheDir(); err != nil {
			return "", err
		}
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("resolve cache folder: %w", err)
	}
	if err := mkdirOpen(root); err != nil {
		return "", fmt.Errorf("make cache folder: %w", err)
	}
	dir := filepath.Join(root, "postgres-"+pin.version+"-"+platform)
	bin := filepath.Join(dir, "bin")
	if _, err := os.Stat(bin); err == nil {
		return bin, Reachable(bin)
	}
	if f.Offline {
		return "", fmt.Errorf("%w: PostgreSQL %d is neither installed nor in %s", ErrUnavailable, major, root)
	}

	lock := flock.New(dir + ".lock")
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	defer lock.Unlock()
	if _, err := os.Stat(bin); err == nil {
		return bin, Reachable(bin) // another process was quicker
	}
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()

	jar := dir + ".jar.part"
	defer os.Remove(jar)
	url := pinURL(cmp.Or(f.Repository, mavenCentral), platform, pin.version)
	if err := f.download(ctx, url, jar, pin.sha256[platform], "PostgreSQL "+strings.TrimSuffix(pin.version, ".0")); err != nil {
		return "", errors.Join(ErrUnavailable, err)
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil { // left by a process that was killed here
		return "", fmt.Errorf("remove unfinished folder: %w", err)
	}
	if err := unpackJar(ctx, jar, part); err != nil {
		return "", fmt.Errorf("unpack %s: %w", url, err)
	}
	if err := os.Rename(part, dir); err != nil {
		return "", fmt.Errorf("install binaries: %w", err)
	}
	return bin, Reachable(bin)
}

// download writes url to path and checks its SHA-256.
func (f *Finder) download(ctx context.Context, url, path, sum, what string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", what, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("fetch %s: %s", url, resp.Status)
	}
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", what, err)
	}
	defer out.Close()
	h := sha256.New()
	body := &progressReader{r: resp.Body, at: Progress{What: what, Total: max(resp.ContentLength, 0)}, tell: f.Progress}
	if _, err := io.Copy(io.MultiWriter(out, h), body); err != nil {
		return fmt.Errorf("fetch %s: %w", url, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("fetch %s: its SHA-256 is %s, want %s", url, got, sum)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("fetch %s: %w", what, err)
	}
	return nil
}

type progressReader struct {
	r    io.Reader
	at   Progress
	tell func(Progress)
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.at.Done += int64(n)
	if p.tell != nil && n > 0 {
		p.tell(p.at)
	}
	return n, err
}

// unpackJar unpacks the .txz inside a zonky jar into dir.
func unpackJar(ctx context.Context, jar, dir string) error {
	z, err := zip.OpenReader(jar)
	if err != nil {
		return fmt.Errorf("open jar: %w", err)
	}
	defer z.Close()
	for _, e := range z.File {
		if !strings.HasSuffix(e.Name, ".txz") {
			continue
		}
		r, err := e.Open()
		if err != nil {
			return fmt.Errorf("open %s: %w", e.Name, err)
		}
		defer r.Close()
		x, err := xz.NewReader(r)
		if err != nil {
			return fmt.Errorf("read %s: %w", e.Name, err)
		}
		return untar(ctx, x, dir)
	}
	return errors.New("the jar holds no .txz")
}

// untar writes an archive's folders, files and links beneath dir, readable by
// every user. os.Root keeps a hostile name from leaving dir.
func untar(ctx context.Context, r io.Reader, dir string) error {
	if err := mkdirOpen(dir); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer root.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		if name == "." {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("make folder of %s: %w", name, err)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			err = writeFile(root, name, t, 0o644|fs.FileMode(h.Mode)&0o111)
		case tar.TypeSymlink:
			err = root.Symlink(h.Linkname, name)
		case tar.TypeLink:
			err = root.Link(filepath.Clean(h.Linkname), name)
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
}

func writeFile(root *os.Root, name string, r io.Reader, mode fs.FileMode) error {
	if mode&0o111 != 0 {
		mode |= 0o111
	}
	out, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, r); err != nil {
		return err
	}
	if err := out.Chmod(mode); err != nil { // past the umask
		return err
	}
	return out.Close()
}

// mkdirOpen is MkdirAll whose new folders any user may enter, whatever the
// umask is.
func mkdirOpen(dir string) error {
	if fi, err := os.Stat(dir); err == nil {
		if !fi.IsDir() {
			return fmt.Errorf("%s is not a folder", dir)
		}
		return nil
	}
	if err := mkdirOpen(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o755)
}

package laketest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

var minioTool = GoProgram("minio")

// MinIOServer is a MinIO with its data in a temporary folder. All tests of a
// process share it; each takes a bucket of its own.
type MinIOServer struct {
	Endpoint  string // http://127.0.0.1:port
	Host      string // 127.0.0.1:port
	Region    string
	AccessKey string
	SecretKey string
	Client    *minio.Client

	cmd     *exec.Cmd
	ended   chan error
	buckets atomic.Int64
}

var sharedMinIO = sync.OnceValues(startMinIO)

// MinIO gives the process's MinIO, starting it at the first call.
func MinIO(t testing.TB) *MinIOServer {
	t.Helper()
	Short(t, "no MinIO")
	need(t, minioTool)
	s, err := sharedMinIO()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func startMinIO() (*MinIOServer, error) {
	data, err := SharedDir("minio")
	if err != nil {
		return nil, err
	}
	return StartMinIO(context.Background(), data)
}

// StartMinIO starts a MinIO of one's own, outside a test, with its data in a
// folder. It dies with this process, or by Stop.
func StartMinIO(ctx context.Context, data string) (*MinIOServer, error) {
	dir, err := minioTool.Ensure(ctx, nil)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		s, err := startMinIOOnce(filepath.Join(dir, "minio"), data)
		if err == nil || try == 3 { // another process may have taken the port
			return s, err
		}
	}
}

func startMinIOOnce(binary, data string) (*MinIOServer, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	s := &MinIOServer{
		Host:      fmt.Sprintf("127.0.0.1:%d", port),
		Region:    "us-east-1",
		AccessKey: "firntest",
		SecretKey: "firntestsecret",
	}
	s.Endpoint = "http://" + s.Host

	log := &tailWriter{max: 16 << 10}
	cmd := exec.Command(binary, "server", "--quiet", "--address", s.Host, data)
	cmd.Env = append(os.Environ(), "MINIO_ROOT_USER="+s.AccessKey, "MINIO_ROOT_PASSWORD="+s.SecretKey,
		"MINIO_PROMETHEUS_AUTH_TYPE=public", "MINIO_BROWSER=off", "MINIO_UPDATE=off", "CI=true", "HOME="+data)
	cmd.Stdout, cmd.Stderr = log, log
	if err := Spawn(cmd); err != nil {
		return nil, fmt.Errorf("start MinIO: %w", err)
	}
	s.cmd, s.ended = cmd, make(chan error, 1)
	go func() { s.ended <- cmd.Wait() }()
	if err := waitHTTP(s.Endpoint+"/minio/health/live", time.Minute, s.ended); err != nil {
		_ = cmd.Process.Kill()
		return nil, fmt.Errorf("start MinIO: %w; it wrote: %s", err, log)
	}
	s.Client, err = minio.New(s.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""),
		Region: s.Region,
	})
	return s, err
}

// PID is the server's process.
func (s *MinIOServer) PID() int { return s.cmd.Process.Pid }

// Stop ends a server of StartMinIO at once and waits for its end. Its data stay.
func (s *MinIOServer) Stop() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
}

// Bucket makes a bucket for one test and removes it with its objects after.
func (s *MinIOServer) Bucket(t testing.TB) string {
	t.Helper()
	ctx := context.Background()
	name := fmt.Sprintf("lake-%d-%d", os.Getpid(), s.buckets.Add(1))
	if err := s.Client.MakeBucket(ctx, name, minio.MakeBucketOptions{Region: s.Region}); err != nil {
		t.Fatalf("make bucket %s: %v", name, err)
	}
	t.Cleanup(func() {
		err := s.Client.RemoveBucketWithOptions(ctx, name, minio.RemoveBucketOptions{ForceDelete: true})
		if err != nil {
			t.Errorf("remove bucket %s: %v", name, err)
		}
	})
	return name
}

// Env is what the AWS credential chain reads, for a firn run as a program.
func (s *MinIOServer) Env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_REGION=" + s.Region, "AWS_DEFAULT_REGION=" + s.Region,
		"AWS_EC2_METADATA_DISABLED=true",
	}
}

// Properties is what an Iceberg client (PyIceberg, Java's S3FileIO) is told to
// read the store.
func (s *MinIOServer) Properties() map[string]string {
	return map[string]string{
		"s3.endpoint": s.Endpoint, "s3.path-style-access": "true",
		"s3.access-key-id": s.AccessKey, "s3.secret-access-key": s.SecretKey,
		"s3.region": s.Region, "client.region": s.Region,
	}
}

// waitHTTP waits until url answers 200, the server ends, or the time is over.
func waitHTTP(url string, limit time.Duration, ended <-chan error) error {
	client := &http.Client{Timeout: 5 * time.Second}
	deadline := time.Now().Add(limit)
	last := errors.New("no answer yet")
	for time.Now().Before(deadline) {
		resp, err := client.Get(url)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		last = err
		select {
		case err := <-ended:
			return fmt.Errorf("it ended: %w", errors.Join(err, last))
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("wait for %s: %w", url, last)
}

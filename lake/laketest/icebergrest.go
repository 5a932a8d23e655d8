package laketest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var icebergRESTTool = mavenTool("iceberg-rest", "iceberg-rest", 17)

// IcebergREST starts Iceberg's own REST catalog, the outside catalog of the
// tests, for one test. Its warehouse is a bucket of s, or a folder of its own
// where s is nil. It answers on all of the machine's addresses: it knows no other.
func IcebergREST(t testing.TB, s *MinIOServer, bucket string) (uri string) {
	t.Helper()
	Short(t, "no Iceberg REST catalog")
	dir := need(t, icebergRESTTool)
	java, err := javaHome(17)
	if err != nil {
		unavailable(t, "Java", icebergRESTTool.Get, err)
	}
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	cmd := exec.Command(filepath.Join(java, "bin", "java"), "-Xmx512m", "-XX:TieredStopAtLevel=1",
		"-cp", filepath.Join(dir, "lib", "*"), "org.apache.iceberg.rest.RESTCatalogServer")
	// In memory its tables are lost after some minutes.
	cmd.Env = append(os.Environ(), fmt.Sprintf("CATALOG_REST_PORT=%d", port),
		"CATALOG_URI=jdbc:sqlite:file:"+filepath.Join(state, "catalog.db"), "AWS_REGION=us-east-1")
	if s == nil {
		cmd.Env = append(cmd.Env, "CATALOG_WAREHOUSE=file://"+filepath.Join(state, "warehouse"))
	} else {
		cmd.Env = append(cmd.Env, "CATALOG_WAREHOUSE=s3://"+bucket+"/warehouse",
			"CATALOG_IO__IMPL=org.apache.iceberg.aws.s3.S3FileIO", "CATALOG_S3_ENDPOINT="+s.Endpoint,
			"CATALOG_S3_PATH__STYLE__ACCESS=true", "CATALOG_S3_ACCESS__KEY__ID="+s.AccessKey,
			"CATALOG_S3_SECRET__ACCESS__KEY="+s.SecretKey, "CATALOG_CLIENT_REGION="+s.Region)
	}
	log := &tailWriter{max: 16 << 10}
	cmd.Stdout, cmd.Stderr = log, log
	if err := Spawn(cmd); err != nil {
		t.Fatalf("start Iceberg's REST catalog: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		for range ended { // until it is gone, and with it its hold on the folder
		}
	})
	uri = fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := waitHTTP(uri+"/v1/config", 2*time.Minute, ended); err != nil {
		t.Fatalf("start Iceberg's REST catalog: %v; it wrote: %s", err, log)
	}
	return uri
}

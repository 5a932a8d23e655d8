package laketest

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"sync"
	"testing"
)

var (
	sparkTool     = pythonTool("spark", "spark")
	sparkJarsTool = mavenTool("spark-jars", "spark", 17)
)

// SparkEngine is the one Spark session of the process, its time zone UTC. It has
// no type for a uuid (it reads one as string) and refuses tables with a time.
type SparkEngine struct{ w *worker }

var sharedSpark = sync.OnceValues(func() (*SparkEngine, error) {
	python3, err := sparkTool.Ensure(context.Background(), nil)
	if err != nil {
		return nil, err
	}
	jars, err := sparkJarsTool.Ensure(context.Background(), nil)
	if err != nil {
		return nil, err
	}
	java, err := javaHome(17)
	if err != nil {
		return nil, err
	}
	scratch, err := SharedDir("spark")
	if err != nil {
		return nil, err
	}
	w, err := startWorker(python(python3), "spark_worker.py", []string{filepath.Join(jars, "lib"), scratch},
		"JAVA_HOME="+java, "SPARK_LOCAL_IP=127.0.0.1", "AWS_REGION=us-east-1",
		"PYSPARK_PYTHON="+python(python3), "SPARK_CONF_DIR="+scratch)
	if err != nil {
		return nil, err
	}
	return &SparkEngine{w}, nil
})

// Spark gives the process's Spark, starting it at the first call (half a minute).
// Only the package lake/laketest/engines calls it.
func Spark(t testing.TB) *SparkEngine {
	t.Helper()
	Short(t, "no Spark")
	need(t, sparkTool)
	need(t, sparkJarsTool)
	s, err := sharedSpark()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Catalog makes a REST catalog known by a name, used once in the process.
// properties are Iceberg's: uri, warehouse, token, s3.endpoint … Tables are read
// anew by each query.
func (s *SparkEngine) Catalog(t testing.TB, name string, properties ...map[string]string) {
	t.Helper()
	all := map[string]string{"type": "rest", "cache-enabled": "false"}
	for _, m := range properties {
		maps.Copy(all, m)
	}
	if all["s3.endpoint"] != "" {
		all["io-impl"] = "org.apache.iceberg.aws.s3.S3FileIO"
	}
	ctx, cancel := context.WithTimeout(context.Background(), queryLimit)
	defer cancel()
	if err := s.w.call(ctx, "catalog", map[string]any{"name": name, "properties": all}, nil); err != nil {
		t.Fatalf("Spark: make catalog %s known: %v", name, err)
	}
}

// Try runs one SQL statement and gives Spark's error as it is.
func (s *SparkEngine) Try(ctx context.Context, sql string) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	var r Result
	if err := s.w.call(ctx, "sql", map[string]any{"sql": sql}, &r); err != nil {
		return nil, fmt.Errorf("Spark: %w", err)
	}
	return &r, nil
}

// Query is Try for SQL that must work.
func (s *SparkEngine) Query(t testing.TB, sql string) *Result {
	t.Helper()
	r, err := s.Try(context.Background(), sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return r
}

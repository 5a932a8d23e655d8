package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"firn/catalog"
	"firn/lake/laketest"
	"firn/lake/object"
)

// scans reads tables of lakes that nobody writes to, by engines, through catalogs
// of its own.
type scans struct {
	r         *rig
	pyiceberg *laketest.PyIcebergEngine
	servers   []*http.Server
	attached  []string
}

func (r *rig) scans(ctx context.Context) (*scans, error) {
	p, err := laketest.StartPyIceberg(ctx)
	if err != nil {
		return nil, err
	}
	return &scans{r: r, pyiceberg: p}, nil
}

func (s *scans) close() {
	for _, name := range s.attached {
		_, _ = s.r.duckdb.Try(context.Background(), "DETACH "+name) // the rig's end is near
	}
	s.pyiceberg.Stop()
	for _, x := range s.servers {
		_ = x.Close()
	}
}

// open lets the engines know a lake by a name.
func (s *scans) open(ctx context.Context, name string, log *catalog.Log, store object.Store) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for readers: %w", err)
	}
	server := &http.Server{Handler: catalog.NewServer(log, store, catalog.ServerOptions{Warehouse: name, HeadAgeMax: -1})}
	s.servers = append(s.servers, server)
	go func() { _ = server.Serve(l) }() // ends by close
	url := "http://" + l.Addr().String()
	_, err = s.r.duckdb.Try(ctx, fmt.Sprintf("ATTACH %s AS %s (TYPE iceberg, ENDPOINT %s, AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none')",
		laketest.Quote(name), name, laketest.Quote(url)))
	if err != nil {
		return fmt.Errorf("attach the lake to DuckDB: %w", err)
	}
	s.attached = append(s.attached, name)
	return s.pyiceberg.TryCatalog(ctx, name, map[string]string{"uri": url, "warehouse": name}, s.r.s3.Properties())
}

// scan reads all rows of events in the lake of that name, and takes the time.
type scan struct {
	about string
	scan  func(ctx context.Context, lake string) (time.Duration, error)
}

// by gives the scans that an engine is measured by.
func (s *scans) by(engine string) []scan {
	if engine == "PyIceberg" {
		return []scan{{"three columns to Arrow", s.toArrow}}
	}
	return []scan{
		{"aggregate of four columns", s.sql("select kind, count(*), sum(amount), avg(f1), max(created_at) from %s.public.events group by kind")},
		{"sum of one column", s.sql("select count(*), sum(i1) from %s.public.events")},
	}
}

func (s *scans) sql(query string) func(context.Context, string) (time.Duration, error) {
	return func(ctx context.Context, lake string) (time.Duration, error) {
		began := time.Now()
		_, err := s.r.duckdb.Try(ctx, fmt.Sprintf(query, lake))
		return time.Since(began), err
	}
}

func (s *scans) toArrow(ctx context.Context, lake string) (time.Duration, error) {
	began := time.Now()
	var rows int64
	err := s.pyiceberg.TryPython(ctx, `
t = load(args["lake"], "public.events")
result = t.scan(selected_fields=("kind", "amount", "f1")).to_arrow().num_rows
`, map[string]any{"lake": lake}, &rows)
	if err == nil && rows == 0 {
		err = errors.New("the table is empty")
	}
	return time.Since(began), err
}

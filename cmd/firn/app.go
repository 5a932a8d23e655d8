package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"firn/catalog"
	"firn/cmd/firn/internal/config"
	"firn/cmd/firn/internal/wire"
	"firn/lake"
	"firn/lake/object"
)

// warehouse is an open lake: its objects, and its log.
type warehouse struct {
	c     *config.Config
	store object.Store
	log   *catalog.Log
}

// openWarehouse opens the lake, or an empty place for one.
func openWarehouse(ctx context.Context, c *config.Config, logger *slog.Logger) (*warehouse, error) {
	store, log, err := wire.OpenStore(ctx, wire.Options{Warehouse: c.Warehouse, Object: objectOptions(c), Retention: c.Retention.Rule(), Logger: logger})
	if err != nil {
		return nil, err
	}
	return &warehouse{c: c, store: store, log: log}, nil
}

// openLake opens a lake that must be there already.
func openLake(ctx context.Context, c *config.Config, logger *slog.Logger) (*warehouse, error) {
	none := &lake.Refusal{Code: exitPreflight, Text: fmt.Sprintf("There is no lake at %s", c.Warehouse), Fix: "`firn run` makes one; check --warehouse."}
	folder, err := c.Folder()
	if err != nil {
		return nil, err
	}
	if folder != "" {
		// Opening it would make it.
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			return nil, none
		}
	}
	w, err := openWarehouse(ctx, c, logger)
	if err != nil {
		return nil, err
	}
	if w.log.Head().CommitID == "" {
		return nil, none
	}
	return w, nil
}

func objectOptions(c *config.Config) object.Options { return object.Options{Endpoint: c.S3Endpoint} }

// names are those of the slot and publication: the user's, else the lake's
// own, else made anew.
func (w *warehouse) names() (slot, publication string, err error) {
	slot, publication = w.c.Slot, w.c.Publication
	if src := w.log.Head().Source; src != nil {
		if slot == "" {
			slot = src.Slot
		}
		if publication == "" {
			publication = src.Publication
		}
	}
	if slot != "" && publication != "" {
		return slot, publication, nil
	}
	name, err := w.c.ObjectName()
	if slot == "" {
		slot = name
	}
	if publication == "" {
		publication = name
	}
	return slot, publication, err
}

// name is the warehouse's for clients of the catalog.
func (w *warehouse) name() string {
	switch head := w.log.Head(); {
	case w.c.Name != "":
		return w.c.Name
	case head.Warehouse != "":
		return head.Warehouse
	case w.c.Postgres != "":
		return w.c.Database()
	}
	return "lake"
}

// handler is the REST catalog over the lake.
func (w *warehouse) handler(token string, logger *slog.Logger) http.Handler {
	settings := w.c.Settings
	return catalog.NewServer(w.log, w.store, catalog.ServerOptions{
		Warehouse: w.name(), Token: token, Config: readerConfig(w.c), Logger: logger,
		AllowRowChanges: func(id catalog.Ident) bool {
			return settings(strings.Join(id.Namespace, "."), id.Name).AllowWrites
		},
	})
}

// readerConfig tells clients of the catalog how to reach the store. It never
// holds keys: readers bring their own.
func readerConfig(c *config.Config) map[string]string {
	if !c.OnS3() {
		return nil
	}
	out := map[string]string{}
	endpoint := first(c.ReaderS3Endpoint, c.S3Endpoint, os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
	region := first(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	if endpoint != "" {
		out["s3.endpoint"] = endpoint
		out["s3.path-style-access"] = "true"
		region = first(region, "us-east-1")
	}
	if region != "" {
		out["client.region"], out["s3.region"] = region, region
	}
	return out
}

// first is the first of the texts that isn't empty.
func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// token reads the token file, if there is one.
func token(c *config.Config) (string, error) {
	if c.TokenFile == "" {
		return "", nil
	}
	t, err := catalog.ReadToken(c.TokenFile)
	if err != nil {
		return "", &config.Error{Text: fmt.Sprintf("--token-file: %v", err)}
	}
	return t, nil
}

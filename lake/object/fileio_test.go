package object_test

import (
	"io"
	"io/fs"
	"testing"

	iceio "github.com/apache/iceberg-go/io"
	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
	"firn/lake/object"
)

func TestFileIO(t *testing.T) {
	folder, err := object.Open(t.Context(), t.TempDir(), object.Options{})
	require.NoError(t, err)
	for name, s := range map[string]object.Store{"folder": folder, "memory": laketest.NewMemoryStore()} {
		t.Run(name, func(t *testing.T) { checkFileIO(t, object.FileIO(t.Context(), s), s.URI("shop")) })
	}
}

// iceberg-go finds the store by a table's location and properties alone.
func TestRegisteredFileIO(t *testing.T) {
	m := laketest.MinIO(t)
	object.RegisterFileIO(object.Options{})
	object.RegisterFileIO(object.Options{}) // no panic
	for _, scheme := range []string{"s3://", "s3a://"} {
		root := scheme + m.Bucket(t) + "/shop"
		f, err := iceio.LoadFS(t.Context(), m.Properties(), root)
		require.NoError(t, err)
		checkFileIO(t, f, root)
	}
	_, err := iceio.LoadFS(t.Context(), m.Properties(), "s3://no-such-bucket/x")
	require.ErrorIs(t, err, object.ErrNoBucket)
}

func checkFileIO(t *testing.T, f iceio.IO, root string) {
	t.Helper()
	w := f.(iceio.WriteFileIO)
	names := []string{root + "/metadata/m.avro", root + "/data/d.parquet"}
	for _, name := range names {
		require.NoError(t, w.WriteFile(name, []byte("0123456789")))
		file, err := f.Open(name)
		require.NoError(t, err)
		info, err := file.Stat()
		require.NoError(t, err)
		require.Equal(t, int64(10), info.Size())
		buf := make([]byte, 4)
		_, err = file.ReadAt(buf, 3)
		require.NoError(t, err)
		require.Equal(t, "3456", string(buf))
		at, err := file.Seek(-2, io.SeekEnd)
		require.NoError(t, err)
		require.Equal(t, int64(8), at)
		rest, err := io.ReadAll(file)
		require.NoError(t, err)
		require.Equal(t, "89", string(rest))
		require.NoError(t, file.Close())
	}
	created, err := w.Create(root + "/metadata/created.json")
	require.NoError(t, err)
	_, err = created.Write([]byte("{}"))
	require.NoError(t, err)
	require.NoError(t, created.Close())
	require.Error(t, created.Close())
	data, err := f.(iceio.ReadFileIO).ReadFile(root + "/metadata/created.json")
	require.NoError(t, err)
	require.Equal(t, "{}", string(data))

	walk := func(from string) (files []string) {
		require.NoError(t, f.(iceio.ListableIO).WalkDir(from, func(name string, d fs.DirEntry, err error) error {
			require.NoError(t, err)
			if !d.IsDir() {
				files = append(files, name)
			}
			return nil
		}))
		return files
	}
	require.Equal(t, []string{names[1], root + "/metadata/created.json", names[0]}, walk(root))
	require.Equal(t, []string{names[1]}, walk(root+"/data/"))

	_, err = f.Open(root + "/none.parquet")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = f.Open(root + "/none.avro")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = f.(iceio.StatIO).Stat(root + "/none")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = f.Open("gs://elsewhere/x")
	require.ErrorIs(t, err, fs.ErrInvalid)
	require.ErrorContains(t, err, "outside")

	deleted, err := f.(iceio.BulkRemovableIO).DeleteFiles(t.Context(), []string{names[0], root + "/none", "gs://elsewhere/x"})
	require.Error(t, err)
	require.Equal(t, []string{names[0], root + "/none"}, deleted)
	require.NoError(t, f.Remove(names[1]))
	require.Equal(t, []string{root + "/metadata/created.json"}, walk(root))
}

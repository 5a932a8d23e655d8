package object_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"firn/lake/laketest"
	"firn/lake/object"
)

func TestRemoveLeftovers(t *testing.T) {
	dir := t.TempDir()
	s, err := object.Open(t.Context(), dir, object.Options{})
	require.NoError(t, err)
	n, err := object.RemoveLeftovers(t.Context(), s, time.Hour)
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, s.PutIfAbsent(t.Context(), "_firn/log/1.json", nil))
	old, young := filepath.Join(dir, "_firn/tmp/old"), filepath.Join(dir, "_firn/tmp/young")
	require.NoError(t, os.WriteFile(old, []byte("half"), 0o600))
	require.NoError(t, os.WriteFile(young, []byte("half"), 0o600))
	past := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(old, past, past))
	keys, err := s.Keys(t.Context(), "", "", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"_firn/log/1.json"}, keys, "no listing shows them")
	n, err = object.RemoveLeftovers(t.Context(), s, time.Hour)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.NoFileExists(t, old)
	require.FileExists(t, young)
}

// MinIO lists unfinished uploads only by their whole names, so Amazon's answer
// is played here.
func TestRemoveLeftoversOfS3(t *testing.T) {
	m := laketest.MinIO(t)
	var aborted []string
	s := minioStore(t, m, faultyServer(t, m, func(w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		switch {
		case r.Method == http.MethodGet && q.Has("uploads"):
			upload := func(key string, age time.Duration) string {
				return "<Upload><Key>" + q.Get("prefix") + key + "</Key><UploadId>id-" + key + "</UploadId><Initiated>" +
					time.Now().Add(-age).UTC().Format(time.RFC3339) + "</Initiated></Upload>"
			}
			_, _ = io.WriteString(w, "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>"+
				upload("old", 2*time.Hour)+upload("young", time.Minute)+"</ListMultipartUploadsResult>")
			return true
		case r.Method == http.MethodDelete && q.Has("uploadId"):
			aborted = append(aborted, r.URL.Path[strings.Index(r.URL.Path[1:], "/")+1:]+" "+q.Get("uploadId"))
			w.WriteHeader(http.StatusNoContent)
			return true
		}
		return false
	}))
	n, err := object.RemoveLeftovers(t.Context(), s, time.Hour)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, []string{"/some/shop/old id-old"}, aborted)
}

func BenchmarkHeadOfALongLog(b *testing.B) {
	s, err := object.Open(b.Context(), b.TempDir(), object.Options{})
	require.NoError(b, err)
	key, _ := s.Key(s.URI("_firn/log"))
	dir := strings.TrimPrefix(s.URI(key), "file://")
	entries := 86_400 // a day of an entry a second, a thousand a folder
	if testing.Short() {
		entries = 3000
	}
	for i := range entries {
		folder := filepath.Join(dir, fmt.Sprintf("%05d", i/1000))
		require.NoError(b, os.MkdirAll(folder, 0o755))
		require.NoError(b, os.WriteFile(filepath.Join(folder, fmt.Sprintf("%020d.json", i)), nil, 0o600))
	}
	for b.Loop() {
		keys, err := s.Keys(b.Context(), "_firn/log/", "", 1)
		require.NoError(b, err)
		require.Len(b, keys, 1)
	}
}

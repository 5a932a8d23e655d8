package snapshot

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOwnName(t *testing.T) {
	id := newUUID()
	for _, name := range []string{id + ".parquet", id + "-deletes.parquet", id + "-dv.puffin", id + "-m0.avro", "snap-5577-1-" + id + ".avro", "00012-" + id + ".metadata.json"} {
		require.True(t, OwnName("public/a-1/data/"+name), name)
	}
	const random = "2d3d7d6e-0f43-4a35-8d61-8a9c1f3b2a10"
	for _, name := range []string{
		"00000-12-" + random + "-0-00001.parquet", "00000-12-" + id + "-0-00001.parquet", "20261123_101112_00001_abcde-" + random + ".parquet",
		random + "-m0.avro", "snap-5577-1-" + random + ".avro", "version-hint.text",
	} {
		require.False(t, OwnName("public/a-1/data/"+name), name)
	}
}

package wire

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"firn/catalog"
	"firn/lake/snapshot"
)

// engineTable is one that another engine makes through our catalog.
type engineTable struct {
	l      *shortLog
	id     catalog.Ident
	folder string
	uuid   string
	lists  map[int64]string // manifest lists of the snapshots it has, by snapshot
}

func newEngineTable(l *shortLog, folder string) *engineTable {
	return &engineTable{l: l, id: catalog.Ident{Namespace: []string{"analytics"}, Name: "x"}, folder: folder, uuid: uuid.NewString(), lists: map[int64]string{}}
}

func (x *engineTable) put(name, body string) string {
	x.l.t.Helper()
	key := x.folder + "/" + name
	require.NoError(x.l.t, x.l.store.Put(x.l.t.Context(), key, strings.NewReader(body), int64(len(body))))
	return key
}

// commit adds a snapshot that shows nothing, with thin drops all others, and returns
// the key of its manifest list.
func (x *engineTable) commit(id int64, thin bool) string {
	x.l.t.Helper()
	var list bytes.Buffer
	require.NoError(x.l.t, iceberg.WriteManifestList(2, &list, id, nil, &id, 0, nil))
	x.lists[id] = x.put(fmt.Sprintf("metadata/snap-%d-1-%s.avro", id, uuid.NewString()), list.String())
	maps.DeleteFunc(x.lists, func(n int64, _ string) bool { return thin && n != id })
	var snapshots []string
	for n, key := range x.lists {
		snapshots = append(snapshots, fmt.Sprintf(`{"snapshot-id":%d,"sequence-number":%d,"timestamp-ms":%d,"manifest-list":%q,"summary":{"operation":"append"},"schema-id":0}`,
			n, n, 1700000000000+n, x.l.store.URI(key)))
	}
	metadata := x.put(fmt.Sprintf("metadata/%05d-%s.metadata.json", id, uuid.NewString()), fmt.Sprintf(`{"format-version":2,"table-uuid":%q,"location":%q,
		"last-sequence-number":%d,"last-updated-ms":%d,"last-column-id":1,"current-schema-id":0,
		"schemas":[{"type":"struct","schema-id":0,"fields":[{"id":1,"name":"a","required":false,"type":"int"}]}],
		"default-spec-id":0,"partition-specs":[{"spec-id":0,"fields":[]}],"last-partition-id":999,
		"default-sort-order-id":0,"sort-orders":[{"order-id":0,"fields":[]}],
		"properties":{},"current-snapshot-id":%d,"snapshots":[%s],"refs":{"main":{"snapshot-id":%d,"type":"branch"}}}`,
		x.uuid, x.l.store.URI(x.folder), id, 1700000000000+id, id, strings.Join(snapshots, ","), id))
	_, err := x.l.log.Commit(x.l.t.Context(), func(n *catalog.State) error {
		n.PutNamespace(x.id.Namespace, nil)
		n.PutTable(x.id, catalog.Table{UUID: x.uuid, Location: x.l.store.URI(x.folder), Metadata: x.l.store.URI(metadata), SnapshotID: id})
		return nil
	})
	require.NoError(x.l.t, err)
	return x.lists[id]
}

// there says whether an object is.
func (l *shortLog) there(key string) bool {
	l.t.Helper()
	keys, err := l.store.Keys(l.t.Context(), key, "", 0)
	require.NoError(l.t, err)
	return len(keys) > 0
}

// sweep looks a few times, each a grace after the last.
func (l *shortLog) sweep() {
	l.t.Helper()
	for range 4 {
		_, err := l.x.sweeper.Sweep(l.t.Context())
		require.NoError(l.t, err)
		time.Sleep(shortGrace)
	}
}

// An engine thins a table of its own, which kept epochs name as it was: what they
// need of it is gone. The rest of the lake is kept clean all the same, only not
// that table's folder.
func TestRule14EngineThinsItsOwnTable(t *testing.T) {
	l := newShortLog(t)
	l.x.sweeper.OthersGrace = shortGrace
	x := newEngineTable(l, "analytics/x-0123456789ab")
	first := x.commit(1, false)
	l.epoch(l.log)    // names it
	x.commit(2, true) // expire_snapshots
	require.NoError(t, l.store.Delete(t.Context(), first))
	lost := x.put("data/00000-0-lost.parquet", "of the first snapshot, perhaps")
	needless := "public/t0-01234567/data/" + uuid.Must(uuid.NewV7()).String() + ".parquet"
	require.NoError(t, l.store.Put(t.Context(), needless, strings.NewReader("PAR1"), 4))
	l.x = &expirer{log: l.log, sweeper: newSweeper(l.log, l.store, snapshot.NewPending(), shortGrace), removed: l.x.removed, logger: l.x.logger} // one that has not read it
	l.x.sweeper.OthersGrace = shortGrace
	l.sweep()
	require.False(t, l.there(needless))
	require.True(t, l.there(lost), "nobody knows what the kept epoch needs")
	require.True(t, l.there(x.lists[2]))

	for range 300 { // until no kept epoch names the first any more
		l.epoch(l.log)
	}
	l.expired()
	require.False(t, l.there(lost))
	require.True(t, l.there(x.lists[2]))
}

// Strangers keep files beside the lake's tables, in folders that look like a
// table's: they stay. What is left of a dropped table goes, whoever's it was.
func TestRule13StrangersFilesStay(t *testing.T) {
	l := newShortLog(t)
	l.x.sweeper.OthersGrace = shortGrace
	x := newEngineTable(l, "analytics/x-0123456789ab")
	list := x.commit(1, false)
	var strangers []string
	for _, key := range []string{
		"raw/data/2026.csv", "raw/data/" + uuid.Must(uuid.NewV7()).String() + ".parquet", "a/raw-20261123/data/orders.csv",
		"analytics/metadata/README", "models/x-0123456789ac/metadata/00001-" + uuid.NewString() + ".metadata.json", "analytics/x-0123456789ab/notes",
	} {
		require.NoError(t, l.store.Put(t.Context(), key, strings.NewReader("theirs"), 6))
		strangers = append(strangers, key)
	}
	killed := "public/t0-01234567/data/" + uuid.Must(uuid.NewV7()).String() + ".parquet" // of a load that never was
	require.NoError(t, l.store.Put(t.Context(), killed, strings.NewReader("PAR1"), 4))
	needless := x.put("data/00000-0-needless.parquet", "PAR1")
	l.sweep()
	require.False(t, l.there(needless))
	require.False(t, l.there(killed))
	require.True(t, l.there(list))
	_, err := l.log.Commit(t.Context(), func(n *catalog.State) error {
		require.True(t, n.DropTable(x.id))
		return nil
	})
	require.NoError(t, err)
	l.sweep()
	require.False(t, l.there(list))
	for _, key := range strangers {
		require.True(t, l.there(key), key)
	}
}

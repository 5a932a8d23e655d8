package snapshot

import (
	"path"
	"regexp"

	"github.com/google/uuid"
)

// dataName is a name for a data or delete file that nobody has used before.
func (t *Table) dataName(suffix string) (key, uri string) {
	key = t.o.Location + "/data/" + newUUID() + suffix
	return key, t.o.Store.URI(key)
}

func (t *Table) metadataKey(name string) string { return t.o.Location + "/metadata/" + name }

// newUUID is time-ordered, so that a listing is too.
func newUUID() string {
	id, err := uuid.NewV7()
	if err != nil {
		return uuid.NewString()
	}
	return id.String()
}

var ownName = regexp.MustCompile(`^(\d{5}-|snap-\d+-1-)?[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}` +
	`(-deletes|-dv|-m\d+|\.metadata)?\.(parquet|puffin|avro|json)$`)

// OwnName says whether an object in a table's folder is named as this package
// names its own. Other engines write to the folders of mirrored tables as well,
// when they rewrite them: under names of another form, or with UUIDs that are
// not ordered by time.
func OwnName(key string) bool { return ownName.MatchString(path.Base(key)) }

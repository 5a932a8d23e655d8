package wal

// Table is a table as pg_class and pg_attribute describe it now: the catalog's
// present, where a Relation message is the stream's past.
type Table struct {
	OID             uint32
	Schema, Name    string
	Partitioned     bool
	ReplicaIdentity byte // d default, n nothing, f full, i index
	Columns         []TableColumn
	// Key holds the indexes into Columns of the columns that identify a row:
	// the replica identity's index, or with full the primary key; empty where
	// there is none (or it is deferrable, and so proves nothing mid-transaction).
	Key       []int
	Rows      int64 // the planner's estimate; -1 unknown
	Bytes     int64
	Pages     int64
	FileNode  uint32
	Writer    uint32  // transaction that wrote its row of pg_class: the last to TRUNCATE, alter or rewrite it
	Leaves    []Leaf  // of a partitioned table
	Dropped   []int16 // attribute numbers of dropped columns
	MaxAttNum int16
	Append    bool // only inserts and truncates are mirrored: no key, whatever the replica identity
	Usable    bool
	Reason    string // why it can't be mirrored, and what would help; empty if Usable
}

// TableColumn is one column that is not dropped.
type TableColumn struct {
	AttNum     int16
	Name       string
	Type       TypeInfo
	NotNull    bool
	HasMissing bool // rows from before ADD COLUMN read a stored default
	Generated  byte // 0, s stored, v virtual: never in the stream unless published
}

// Leaf is a partition that holds rows.
type Leaf struct {
	OID, FileNode uint32
	Writer        uint32 // as of Table
	Schema, Name  string
	Pages         int64
}

// TableName names a table in Postgres.
type TableName struct{ Schema, Name string }

func (n TableName) String() string { return n.Schema + "." + n.Name }

// TextExpr is the SQL expression of a column's text as the stream has it, by
// the type's output function: a cast to text may be a user's own function, and
// give something else. column is already quoted.
func TextExpr(column string) string {
	// num_nulls, because IS NULL holds for a composite whose fields are all NULL.
	return "CASE WHEN pg_catalog.num_nulls(" + column + ") OPERATOR(pg_catalog.=) 0 THEN pg_catalog.format('%s', " + column + ") END"
}

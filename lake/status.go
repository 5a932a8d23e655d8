package lake

import (
	"sync/atomic"
	"time"

	"firn/wal"
)

// Status is what the owner last said of itself. It is a copy.
type Status struct {
	DurableLSN  wal.LSN `json:"durable_lsn"`
	ReceivedLSN wal.LSN `json:"received_lsn"`
	ServerLSN   wal.LSN `json:"server_lsn"`
	LagBytes    int64   `json:"lag_bytes"`
	// Freshness is the age of the oldest commit not yet in the lake, as far as this
	// process has seen: since it arrived, or Postgres was known to have WAL for us.
	Freshness  float64   `json:"freshness_seconds"`
	CommitTime time.Time `json:"commit_time"` // of the last Postgres commit in the lake
	Slot       string    `json:"slot"`
	Epoch      uint64    `json:"epoch"`
	Running    bool      `json:"running"` // the stream is being read
	// Rewrites are under way, which have together so many percent of one processor:
	// 100 while nothing comes, 50 beside the stream, 10 while the lake is behind or
	// loads; the next larger where they queue up. They have worked, and paused for
	// others, since the process began.
	Rewrites            int           `json:"rewrites"`
	RewriteShare        int           `json:"rewrite_share_percent"`
	RewriteSeconds      float64       `json:"rewrite_seconds"`
	RewritePauseSeconds float64       `json:"rewrite_pause_seconds"`
	Tables              []TableStatus `json:"tables"`
}

// TableStatus is one table's part of Status.
type TableStatus struct {
	Name        string     `json:"name"`
	State       string     `json:"state"`
	Reason      string     `json:"reason,omitempty"`
	Rows        int64      `json:"rows"`
	DataFiles   int        `json:"data_files"`
	DeleteFiles int        `json:"delete_files"`
	Bytes       int64      `json:"bytes"`
	SnapshotID  int64      `json:"snapshot_id"`
	LSN         wal.LSN    `json:"lsn"`
	LoadRows    int64      `json:"load_rows,omitempty"`  // copied so far
	LoadTotal   int64      `json:"load_total,omitempty"` // planner's estimate
	LoadBytes   int64      `json:"load_bytes,omitempty"`
	Compaction  Compaction `json:"compaction"`
}

// Ready says whether every table that can stream does.
func (s *Status) Ready() bool {
	if !s.Running {
		return false
	}
	for _, t := range s.Tables {
		if t.State == Loading || t.State == Behind {
			return false
		}
	}
	return true
}

// Status returns the newest status.
func (l *Lake) Status() *Status { return l.status.Load() }

// Counters count since the process began. They may be read at any time.
type Counters struct {
	Inserts, Updates, Deletes, Truncates atomic.Int64
	Transactions                         atomic.Int64
	Epochs, Advances                     atomic.Int64
	Restarts                             atomic.Int64 // sessions begun again within this process
	FilesWritten, BytesWritten           atomic.Int64
	RowsLoaded, BytesLoaded              atomic.Int64
	SpilledBytes                         atomic.Int64
	Rewrites, RewrittenFiles             atomic.Int64 // installed; their inputs
	RewrittenRows, RewrittenBytes        atomic.Int64 // of their outputs
	Removed                              atomic.Int64 // objects that no kept epoch needed; whoever removes them counts
	Looks                                atomic.Int64 // at the source's catalogs
	Errors                               atomic.Int64
	// Phase observes how long a part of a commit took; set before Run.
	Phase func(phase string, d time.Duration)
}

// Counters returns the lake's counters.
func (l *Lake) Counters() *Counters { return &l.counters }

func (c *Counters) phase(name string, since time.Time) {
	if c.Phase != nil {
		c.Phase(name, time.Since(since))
	}
}

package listen

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"firn/lake"
)

// Metrics are what Prometheus reads. Most are read off the lake's status and
// counters at each scrape; only histograms are kept here.
type Metrics struct {
	registry *prometheus.Registry
	phases   *prometheus.HistogramVec
	age      prometheus.Histogram

	status   func() Status
	counters *lake.Counters

	mu      sync.Mutex
	current map[string]time.Time // table → when it last was as fresh as the others
}

var (
	lagBytes     = gauge("lag_bytes", "WAL that Postgres has written and the lake does not hold yet.")
	freshness    = gauge("freshness_seconds", "Age of the oldest Postgres commit that is not in the lake yet.")
	tableFresh   = gauge("table_freshness_seconds", "Age of what the lake shows of a table that is followed.", "table")
	durableLSN   = gauge("durable_lsn_bytes", "WAL position up to which the lake holds every commit.")
	receivedLSN  = gauge("received_lsn_bytes", "WAL position up to which the stream has been read.")
	serverLSN    = gauge("server_lsn_bytes", "End of Postgres' WAL as last heard of.")
	epochNumber  = gauge("epoch", "Number of the newest epoch in the lake.")
	running      = gauge("streaming", "1 while the stream is being read.")
	readyNow     = gauge("ready", "1 when every table that can be followed is loaded and streaming.")
	tableStates  = gauge("tables", "Tables by state.", "state")
	tableRows    = gauge("table_rows", "Live rows of a table in the lake.", "table")
	tableData    = gauge("table_data_files", "Data files of a table's current snapshot.", "table")
	tableDeletes = gauge("table_delete_files", "Delete files of a table's current snapshot.", "table")
	tableBytes   = gauge("table_bytes", "Bytes of the data files of a table's current snapshot.", "table")
	tableState   = gauge("table_state", "1 for the state that a table is in.", "table", "state")
	plannedFiles = gauge("table_planned_rewrite_files", "Data files of a table that are to be rewritten.", "table")
	plannedBytes = gauge("table_planned_rewrite_bytes", "Their bytes.", "table")
	runningNow   = gauge("rewrites_running", "Rewrites under way.")
	rewriteShare = gauge("rewrite_cpu_share", "The share of one processor that rewrites may take together: 0.1 while the lake is behind, 0.5 beside the stream, 1 while nothing comes, or the next larger where they queue up.")
	amplified    = gauge("write_amplification", "Bytes of data files written, by rewrites too, for each that landed.")
	loadedRows   = gauge("table_load_rows", "Rows copied so far of a table that is being loaded.", "table")
	retained     = gauge("retained_wal_bytes", "WAL that Postgres keeps for the replication slot.")
	retainedMax  = gauge("retained_wal_limit_bytes", "max_slot_wal_keep_size; absent if none is set.")
	build        = gauge("build_info", "Always 1.", "version")

	changes      = counter("changes_total", "Row changes applied.", "kind")
	transactions = counter("transactions_total", "Postgres transactions applied.")
	epochs       = counter("epochs_total", "Epochs published.")
	advances     = counter("advances_total", "Log entries without tables, which let the slot go past WAL that held nothing.")
	restarts     = counter("restarts_total", "Times the lake started again from its head within this process.")
	files        = counter("written_files_total", "Data files published.")
	bytes        = counter("written_bytes_total", "Bytes of the data files published.")
	rewrites     = counter("rewrites_total", "Rewrites of data files installed.")
	rewritten    = counter("rewritten_files_total", "Data files that rewrites replaced.")
	rewrittenOut = counter("rewritten_bytes_total", "Bytes of the data files that rewrites made.")
	rewriteRows  = counter("rewritten_rows_total", "Rows of the data files that rewrites made.")
	rewriteTime  = counter("rewrite_seconds_total", "Time that rewrites have worked, or paused for others.", "state")
	removed      = counter("removed_objects_total", "Objects removed that no kept epoch needed any more.")
	rowsLoaded   = counter("loaded_rows_total", "Rows copied by loads.")
	bytesLoaded  = counter("loaded_bytes_total", "Bytes of the rows copied by loads.")
	spilled      = counter("spilled_bytes_total", "Bytes of changes parked on local disk.")
	looks        = counter("catalog_looks_total", "Looks at the source's catalogs, for what the stream does not show.")
	failures     = counter("errors_total", "Errors that were survived, quarantined tables among them.")
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("firn_"+name, help, labels, nil)
}

func counter(name, help string, labels ...string) *prometheus.Desc {
	return gauge(name, help, labels...)
}

func newMetrics(o Options) *Metrics {
	buckets := prometheus.ExponentialBuckets(0.001, 2, 18) // 1 ms … 131 s
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "firn_commit_phase_seconds", Help: "Time that a part of an epoch's commit took.", Buckets: buckets}, []string{"phase"}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "firn_epoch_age_seconds", Help: "Age of an epoch's oldest change when the lake had it.", Buckets: buckets}),
		status: o.Status, counters: o.Counters, current: map[string]time.Time{},
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m)
	if o.Counters != nil {
		for _, phase := range []string{"prepare", "upload", "publish", "index"} {
			m.phases.WithLabelValues(phase)
		}
		m.registry.MustRegister(m.phases, m.age)
	}
	return m
}

// phase takes what lake.Counters.Phase observes.
func (m *Metrics) phase(name string, d time.Duration) {
	if name == "freshness" {
		m.age.Observe(d.Seconds())
		return
	}
	m.phases.WithLabelValues(name).Observe(d.Seconds())
}

// Describe sends nothing: which tables there are changes.
func (m *Metrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads status and counters.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	st := m.status()
	set := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	set(build, 1, st.Version)
	set(epochNumber, float64(st.Epoch))
	set(durableLSN, float64(st.DurableLSN))
	set(readyNow, truth(st.Ready))
	m.tables(st, set)
	if m.counters == nil {
		return
	}
	set(lagBytes, float64(st.LagBytes))
	set(freshness, st.Freshness)
	set(receivedLSN, float64(st.ReceivedLSN))
	set(serverLSN, float64(st.ServerLSN))
	set(running, truth(st.Running))
	if st.RetainedWALBytes >= 0 {
		set(retained, float64(st.RetainedWALBytes))
	}
	if st.RetainedWALLimitBytes >= 0 {
		set(retainedMax, float64(st.RetainedWALLimitBytes))
	}
	c := m.counters
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	count(changes, c.Inserts.Load(), "insert")
	count(changes, c.Updates.Load(), "update")
	count(changes, c.Deletes.Load(), "delete")
	count(changes, c.Truncates.Load(), "truncate")
	count(transactions, c.Transactions.Load())
	count(epochs, c.Epochs.Load())
	count(advances, c.Advances.Load())
	count(restarts, c.Restarts.Load())
	count(files, c.FilesWritten.Load())
	count(bytes, c.BytesWritten.Load())
	count(rewrites, c.Rewrites.Load())
	count(rewritten, c.RewrittenFiles.Load())
	count(rewrittenOut, c.RewrittenBytes.Load())
	count(rewriteRows, c.RewrittenRows.Load())
	for state, seconds := range map[string]float64{"working": st.RewriteSeconds, "pausing": st.RewritePauseSeconds} {
		out <- prometheus.MustNewConstMetric(rewriteTime, prometheus.CounterValue, seconds, state)
	}
	set(runningNow, float64(st.Rewrites))
	set(rewriteShare, float64(st.RewriteShare)/100)
	all := lake.Compaction{WrittenBytes: c.BytesWritten.Load(), RewrittenBytes: c.RewrittenBytes.Load()}
	set(amplified, all.WriteAmplification())
	count(removed, c.Removed.Load())
	count(rowsLoaded, c.RowsLoaded.Load())
	count(bytesLoaded, c.BytesLoaded.Load())
	count(spilled, c.SpilledBytes.Load())
	count(looks, c.Looks.Load())
	count(failures, c.Errors.Load())
}

func (m *Metrics) tables(st Status, set func(*prometheus.Desc, float64, ...string)) {
	states := map[string]int{lake.Loading: 0, lake.Streaming: 0, lake.Behind: 0, lake.Skipped: 0, lake.Quarantined: 0}
	for _, t := range once(st.Tables) {
		states[t.State]++
		set(tableState, 1, t.Name, t.State)
		if m.counters == nil {
			continue
		}
		if age, ok := m.tableAge(t, st); ok {
			set(tableFresh, age.Seconds(), t.Name)
		}
		if t.State == lake.Skipped {
			continue
		}
		set(tableRows, float64(t.Rows), t.Name)
		set(tableData, float64(t.DataFiles), t.Name)
		set(tableDeletes, float64(t.DeleteFiles), t.Name)
		set(tableBytes, float64(t.Bytes), t.Name)
		set(plannedFiles, float64(t.Compaction.PlannedFiles), t.Name)
		set(plannedBytes, float64(t.Compaction.PlannedBytes), t.Name)
		if t.State == lake.Loading || t.State == lake.Behind {
			set(loadedRows, float64(t.LoadRows), t.Name)
		}
	}
	for state, n := range states {
		set(tableStates, float64(n), state)
	}
}

// once leaves one status for each name: a table that was dropped and made anew
// has two for a while.
func once(tables []lake.TableStatus) []lake.TableStatus {
	at := map[string]int{}
	var out []lake.TableStatus
	for _, t := range tables {
		i, twice := at[t.Name]
		switch {
		case !twice:
			at[t.Name] = len(out)
			out = append(out, t)
		case out[i].State == lake.Skipped:
			out[i] = t
		}
	}
	return out
}

// tableAge is how old what the lake shows of a table is: as fresh as the whole
// while it streams with the others, and ageing from then on when it does not.
func (m *Metrics) tableAge(t lake.TableStatus, st Status) (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if t.State == lake.Skipped {
		delete(m.current, t.Name)
		return 0, false
	}
	since, seen := m.current[t.Name]
	if t.State == lake.Streaming && st.Running {
		since, seen = now.Add(-time.Duration(st.Freshness*float64(time.Second))), true
	} else if !seen {
		since = now
	}
	m.current[t.Name] = since
	return now.Sub(since), true
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

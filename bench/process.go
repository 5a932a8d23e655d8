package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// usage is what a run cost.
type usage struct {
	wall      time.Duration
	cpu       time.Duration // of the mirror
	walsender time.Duration // of those alive at the end
	postgres  time.Duration // of all Postgres' processes, walsenders too
	store     time.Duration
	others    time.Duration // of everything else on the machine: how quiet it was
	anon      int64         // peak of the mirror's anonymous memory, in bytes
	file      int64         // peak of its file-backed memory
	requests  int64         // to the store, of all who asked
	received  int64         // bytes that the store was sent
}

// meter measures from start to end.
type meter struct {
	r     *rig
	began time.Time
	pid   int // of the mirror
	at    usage
	busy  time.Duration
	quit  context.CancelFunc
	done  chan struct{}
	anon  atomic.Int64
	file  atomic.Int64
}

// measure starts m, and stops the clock when the lake has all up to end. What
// it cost counts only if the lake's tables are equal to Postgres' then.
func (r *rig) measure(ctx context.Context, m mirror, end string, tables []string) (u usage, err error) {
	w, err := r.meter(ctx)
	if err != nil {
		return u, err
	}
	if err := w.start(ctx, m); err != nil {
		return u, err
	}
	if err := m.reach(ctx, end); err != nil {
		return u, err
	}
	if u, err = w.end(ctx); err != nil {
		return u, err
	}
	r.say("comparing")
	return u, m.check(ctx, tables...)
}

// meter notes what the store was asked for until now, which takes a moment; it
// should have nothing to do from then on.
func (r *rig) meter(ctx context.Context) (*meter, error) {
	w := &meter{r: r, done: make(chan struct{})}
	var err error
	w.at.requests, w.at.received, err = r.storeTraffic(ctx)
	return w, err
}

// start starts the clock and m.
func (w *meter) start(ctx context.Context, m mirror) error {
	var err error
	if w.busy, err = busyTime(); err != nil {
		return err
	}
	w.at.postgres, w.at.store = familyTime(w.r.postmaster), cpuTime(w.r.s3.PID())
	w.began = time.Now()
	if err := m.start(ctx); err != nil {
		return err
	}
	w.pid = m.pid()
	ctx, w.quit = context.WithCancel(ctx)
	go w.watch(ctx)
	return nil
}

// end stops the clock; the mirror must still run.
func (w *meter) end(ctx context.Context) (usage, error) {
	u := usage{wall: time.Since(w.began)}
	u.cpu = familyTime(w.pid)
	busy, err := busyTime()
	if err != nil {
		return u, err
	}
	if u.walsender, err = w.r.walsenderTime(ctx); err != nil {
		return u, err
	}
	u.postgres, u.store = familyTime(w.r.postmaster)-w.at.postgres, cpuTime(w.r.s3.PID())-w.at.store
	u.others = busy - w.busy - u.cpu - u.postgres - u.store
	w.quit()
	<-w.done
	u.anon, u.file = w.anon.Load(), w.file.Load()
	requests, received, err := w.r.storeTraffic(ctx)
	u.requests, u.received = requests-w.at.requests, received-w.at.received
	return u, err
}

// watch samples the memory of the mirror, and of what it has started.
func (w *meter) watch(ctx context.Context) {
	defer close(w.done)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var pids []int
	for n := 0; ; n++ {
		if n%50 == 0 {
			pids = append(children(w.pid), w.pid)
		}
		var anon, file int64
		for _, pid := range pids {
			a, f := memory(pid)
			anon, file = anon+a, file+f
		}
		w.anon.Store(max(w.anon.Load(), anon))
		w.file.Store(max(w.file.Load(), file))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// memory is what is resident of a process, in bytes; 0 if there is none.
func memory(pid int) (anon, file int64) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(status)) {
		for name, into := range map[string]*int64{"RssAnon:": &anon, "RssFile:": &file} {
			if rest, ok := strings.CutPrefix(line, name); ok {
				kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				*into = kb << 10
			}
		}
	}
	return anon, file
}

// tick is the unit of /proc's times; Linux shows them in hundredths of a
// second on every architecture that Go knows.
const tick = 10 * time.Millisecond

// stat reads what the kernel says of a process: its parent, its own CPU time,
// and that of the children that it has waited for.
func stat(pid int) (parent int, own, waited time.Duration, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, 0, false
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may hold anything but ends there
	f := strings.Fields(rest)
	if len(f) < 15 {
		return 0, 0, 0, false
	}
	at := func(i int) time.Duration {
		n, _ := strconv.ParseInt(f[i], 10, 64)
		return time.Duration(n) * tick
	}
	parent, _ = strconv.Atoi(f[1])
	return parent, at(11) + at(12), at(13) + at(14), true
}

// busyTime is what all processors have worked since the machine started.
func busyTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read the processors' times: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	total := time.Duration(0)
	for i, f := range strings.Fields(line) {
		// cpu user nice system idle iowait irq softirq steal …
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the processors' times: %w", err)
		}
		total += time.Duration(n) * tick
	}
	return total, nil
}

// cpuTime is a process' own; 0 if there is none.
func cpuTime(pid int) time.Duration {
	_, own, _, _ := stat(pid)
	return own
}

// familyTime is a process', its children's, and that of those that were.
func familyTime(pid int) time.Duration {
	total := time.Duration(0)
	for _, pid := range append(children(pid), pid) {
		_, own, waited, _ := stat(pid)
		total += own + waited
	}
	return total
}

// children are the processes that a process has started itself.
func children(parent int) []int {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil // only a bad pattern errs
	}
	var pids []int
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if of, _, _, ok := stat(pid); ok && of == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// walsenderTime is the CPU time of the walsenders that run now.
func (r *rig) walsenderTime(ctx context.Context) (time.Duration, error) {
	rows, err := r.conn.Query(ctx, "select pid from pg_stat_replication")
	if err != nil {
		return 0, fmt.Errorf("list walsenders: %w", err)
	}
	defer rows.Close()
	var total time.Duration
	for rows.Next() {
		var pid int
		if err := rows.Scan(&pid); err != nil {
			return 0, fmt.Errorf("list walsenders: %w", err)
		}
		total += cpuTime(pid)
	}
	return total, rows.Err()
}

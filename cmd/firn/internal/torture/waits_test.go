package torture

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Backends that are at work or wait, the longest transaction first: a queue of
// locks shows by who blocks whom, and over what.
const waitsQuery = `
select a.pid || ' ' || a.backend_type || coalesce(' ' || nullif(a.application_name, ''), '') || ': ' || coalesce(a.state, '-')
	|| coalesce(' for ' || round(extract(epoch from clock_timestamp() - a.state_change)::numeric, 1) || ' s', '')
	|| coalesce(', in a transaction for ' || round(extract(epoch from clock_timestamp() - a.xact_start)::numeric, 1) || ' s', '')
	|| coalesce(', waits for ' || a.wait_event_type || '/' || a.wait_event, '')
	|| coalesce(', wants ' || (select string_agg(l.mode || ' on ' || coalesce(l.relation::regclass::text, l.locktype || ' ' || l.transactionid, l.locktype), ', ')
		from pg_locks l where l.pid = a.pid and not l.granted), '')
	|| case when pg_blocking_pids(a.pid) = '{}' then '' else ', blocked by ' || array_to_string(pg_blocking_pids(a.pid), ' ') end
	|| coalesce(', has ' || (select string_agg(distinct l.mode || ' on ' || l.relation::regclass, ', ')
		from pg_locks l where l.pid = a.pid and l.granted and l.relation > 16383
			and exists (select from pg_locks w where not w.granted and w.relation = l.relation and w.pid <> l.pid)), '')
	|| ': ' || left(regexp_replace(a.query, '\s+', ' ', 'g'), 100)
from pg_stat_activity a
where a.pid <> pg_backend_pid() and (a.state <> 'idle' or a.backend_type = 'walsender')
order by a.xact_start nulls last`

// waits says what goes on in Postgres and who waits for whom, a line a backend.
func waits(postgres string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	lines, err := backends(ctx, postgres)
	if err != nil {
		return fmt.Sprintf("Postgres' backends are not known: %v", err)
	}
	return "Postgres' backends that are not idle:\n\t" + strings.Join(lines, "\n\t")
}

func backends(ctx context.Context, postgres string) ([]string, error) {
	conn, err := pgx.Connect(ctx, postgres)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, waitsQuery)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

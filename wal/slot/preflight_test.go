package slot

import (
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"firn/wal/localpg"
)

func itoa(n int) string { return strconv.Itoa(n) }

func checks(ps []Problem) (out []string) {
	for _, p := range ps {
		out = append(out, p.Check)
	}
	return out
}

func TestPreflightNamesEachMissingRight(t *testing.T) {
	srv := sharedServer(t)
	url, admin := newDatabase(t, srv)
	db := admin.Config().Database
	role := "user_" + db
	mustExec(t, admin, `
		REVOKE CREATE ON DATABASE `+db+` FROM PUBLIC;
		CREATE ROLE `+role+` LOGIN;
		CREATE SCHEMA closed; CREATE TABLE closed.t (id int PRIMARY KEY);
		CREATE TABLE mine (id int PRIMARY KEY);
		CREATE TABLE foreigner (id int PRIMARY KEY);
		CREATE TABLE hidden (id int PRIMARY KEY); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
		ALTER TABLE mine OWNER TO `+role)
	t.Cleanup(func() {
		mustExec(t, admin, "DROP OWNED BY "+role+"; DROP ROLE "+role)
	})
	cfg, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	s := open(t, "postgres://"+role+"@"+cfg.Host+":"+itoa(int(cfg.Port))+"/"+db+"?sslmode=disable")
	look := func() []Problem {
		ts, err := s.Tables(t.Context(), nil)
		require.NoError(t, err)
		ps, err := s.Preflight(t.Context(), ts)
		require.NoError(t, err)
		for _, p := range ps {
			t.Log(p)
			require.NotEmpty(t, p.Text)
			require.NotEmpty(t, p.Fix)
		}
		return ps
	}
	ps := look()
	require.Equal(t, []string{"select", "select", "row_security", "publication", "publication", "replication"}, checks(ps))
	require.Contains(t, ps[0].Text, "schema closed")
	require.Contains(t, ps[1].Text, `"public"."foreigner"`)
	require.NotContains(t, ps[1].Text, "mine")
	require.Contains(t, ps[4].Text, "foreigner")

	_, err = s.Identify(t.Context())
	require.ErrorIs(t, err, ErrPrivilege)
	_, _, err = s.SyncPublication(t.Context(), names("public.mine"))
	require.ErrorIs(t, err, ErrPrivilege)

	// What it says helps, one by one.
	mustExec(t, admin, "GRANT USAGE ON SCHEMA closed TO "+role)
	require.Equal(t, []string{"select", "row_security", "publication", "publication", "replication"}, checks(look()))
	mustExec(t, admin, "GRANT SELECT ON closed.t, foreigner, hidden TO "+role)
	require.Equal(t, []string{"row_security", "publication", "publication", "replication"}, checks(look()))
	mustExec(t, admin, "ALTER ROLE "+role+" BYPASSRLS")
	require.Equal(t, []string{"publication", "publication", "replication"}, checks(look()))
	mustExec(t, admin, "GRANT CREATE ON DATABASE "+db+" TO "+role)
	require.Equal(t, []string{"publication", "replication"}, checks(look()))
	mustExec(t, admin, "CREATE PUBLICATION firn FOR TABLE mine, foreigner, hidden, closed.t WITH (publish_via_partition_root = true)")
	require.Equal(t, []string{"replication"}, checks(look()))
	mustExec(t, admin, "ALTER ROLE "+role+" REPLICATION")
	require.Empty(t, look())
	_, _, err = s.SyncPublication(t.Context(), names("public.mine", "public.foreigner", "public.hidden", "closed.t"))
	v, verr := s.Version(t.Context())
	require.NoError(t, verr)
	if v < 180000 { // there the list is fit, but not its publish_generated_columns
		require.NoError(t, err, "nothing to change needs no right")
	}
	mustExec(t, admin, "CREATE TABLE newcomer (id int PRIMARY KEY); ALTER TABLE newcomer OWNER TO "+role)
	require.Equal(t, []string{"publication"}, checks(look()), "the publication is not the user's to change")
	mustExec(t, admin, "DROP PUBLICATION firn; CREATE PUBLICATION firn FOR ALL TABLES; ALTER TABLE foreigner OWNER TO "+role)
	require.Equal(t, []string{"publication"}, checks(look()))
}

func TestPreflightNamesEachWrongSetting(t *testing.T) {
	srv := ownServer(t, localpg.Options{Settings: map[string]string{"wal_level": "replica", "max_replication_slots": "1", "max_wal_senders": "1"}})
	s := open(t, srv.URL("postgres"))
	ps, err := s.Preflight(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"wal_level", "max_replication_slots", "max_wal_senders"}, checks(ps))
	require.Contains(t, ps[0].Text, "wal_level is replica")
	require.Contains(t, ps[1].Text, "0 of max_replication_slots = 1")

	require.NoError(t, srv.Configure(map[string]string{"max_wal_senders": "0"}))
	require.NoError(t, srv.Restart(t.Context()))
	ps, err = s.Preflight(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"wal_level", "max_replication_slots", "max_wal_senders"}, checks(ps))
}

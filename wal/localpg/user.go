package localpg

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// account is the user that the server runs as when we are root, which
// Postgres refuses to run as.
type account struct {
	name     string
	uid, gid int
}

// serverAccount returns nil when this process may run Postgres itself.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue // try the next name
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return nil, fmt.Errorf("look up user %s: %w", name, err)
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return nil, fmt.Errorf("look up user %s: %w", name, err)
		}
		return &account{name, uid, gid}, nil
	}
	return nil, fmt.Errorf("look up a user to run Postgres as: root may not, and there is neither postgres nor nobody")
}

// Reachable says whether the server's user can enter dir: as root, whether
// every folder above it and dir itself may be entered by any user or belongs
// to that user. Folders that don't exist yet are not looked at.
func Reachable(dir string) error {
	acc, err := serverAccount()
	if err != nil || acc == nil {
		return err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", dir, err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		fi, err := os.Stat(d)
		if err == nil && fi.Mode()&0o001 == 0 && owner(fi) != acc.uid {
			return fmt.Errorf("enter %s: Postgres runs as user %s, who may not enter %s; use another folder, or allow it", dir, acc.name, d)
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

package slot

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"firn/wal"
)

// unreadFirst is how many messages the first look takes; what has nothing but
// empty transactions is looked at again for more.
const unreadFirst = 1000

// Unread says whether the source's slot holds changes of published tables by
// transactions whose commit record starts at from or later, but before upto. It
// takes nothing out of the slot, which must not be in use (ErrSlotInUse).
func (s *Source) Unread(ctx context.Context, from, upto wal.LSN) (bool, error) {
	names, err := s.streamed(ctx)
	if err != nil {
		return false, fmt.Errorf("look into slot %s: %w", s.o.Slot, err)
	}
	for limit := unreadFirst; ; limit *= 16 {
		var seen int
		var found bool
		err := s.query(ctx, func(ctx context.Context, c *pgx.Conn) error {
			seen, found = 0, false
			rows, err := c.Query(ctx, `SELECT data FROM pg_logical_slot_peek_binary_changes($1, $2::text::pg_lsn, $3, 'proto_version', '1', 'publication_names', $4)`,
				s.o.Slot, upto.String(), limit, strings.Join(names, ","))
			if err != nil {
				return err
			}
			defer rows.Close()
			inside := false
			for rows.Next() {
				seen++
				var msg []byte
				if err := rows.Scan(&msg); err != nil {
					return err
				}
				if len(msg) == 0 {
					continue
				}
				switch wal.Kind(msg[0]) {
				case wal.KindBegin:
					if len(msg) < 9 {
						return fmt.Errorf("read slot %s: a Begin of %d bytes", s.o.Slot, len(msg))
					}
					final := wal.LSN(binary.BigEndian.Uint64(msg[1:]))
					inside = final >= from && final < upto
				case wal.KindInsert, wal.KindUpdate, wal.KindDelete, wal.KindTruncate:
					found = found || inside
				}
			}
			return rows.Err()
		})
		if code(err) == "55006" {
			return false, fmt.Errorf("look into slot %s: %w: %w", s.o.Slot, ErrSlotInUse, err)
		}
		if err != nil {
			return false, fmt.Errorf("look into slot %s: %w", s.o.Slot, err)
		}
		if found || seen < limit {
			return found, nil
		}
	}
}

// Package slot is the side of Firn that talks to Postgres: what must be in
// order before it starts (Preflight), which tables there are and how they look
// (Tables, Describe, Type), the publication, the replication slot with its
// exported snapshot (CreateSlot), the initial COPY in it (Copy), and the stream
// of changes with its acknowledgements (Stream).
//
// It hands out bytes and catalog facts and decides nothing about the lake:
// which LSN is durable is the caller's to say, by Stream.Ack.
//
// Every connection is made by pgconn, so sslmode, root certificates, password
// files, services and several hosts mean what they mean to libpq. The stream and
// the COPY then take the connection over and read the protocol's frames
// themselves: a context per message and an object per row would cost more than
// all the rest together.
package slot

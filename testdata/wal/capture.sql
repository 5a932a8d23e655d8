-- What the captured messages in this folder come from. A line "-- @x" sends
-- what follows to session x; statements run one after the other, so sessions
-- interleave as written. Remake the captures with
--   go test ./wal -run TestCaptures -capture -update

-- @a
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE DOMAIN price AS numeric(10, 2);
CREATE SCHEMA "Odd Names";
CREATE TABLE plain (id int PRIMARY KEY, n bigint, f float8, t text, b bytea, p price, m mood, ts timestamptz, tags text[], acl aclitem);
CREATE TABLE "Odd Names"."Ünï""q" (a int, b text);
CREATE TABLE full_row (id int, v text);
ALTER TABLE full_row REPLICA IDENTITY FULL;
CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL UNIQUE, v int);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
CREATE TABLE toasted (id int PRIMARY KEY, big text, small int);
ALTER TABLE toasted ALTER COLUMN big SET STORAGE EXTERNAL;
CREATE TABLE part (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE part_1 (v text, day date NOT NULL, id int NOT NULL);
ALTER TABLE part ATTACH PARTITION part_1 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE TABLE bulk (id int PRIMARY KEY, v int);
CREATE TABLE nothing ();
ALTER TABLE nothing REPLICA IDENTITY FULL;
CREATE PUBLICATION cap FOR ALL TABLES WITH (publish_via_partition_root = true);
SELECT pg_create_logical_replication_slot('cap', 'pgoutput');

-- Rows of all kinds.
INSERT INTO plain VALUES (1, 9007199254740993, 0.1, 'text', '\xdeadbeef', 12.5, 'glad', '2026-11-23 02:00:00.123456+00', '{a,NULL,"c d"}', 'postgres=r/postgres');
INSERT INTO plain (id) VALUES (2);
INSERT INTO plain VALUES (3, -1, 'NaN', '', '', 0, 'sad', 'infinity', '{}', NULL), (4, 0, '-Infinity', E'tab\tnul-free ünïcode \U0001F980', NULL, NULL, NULL, '-infinity', '{{1,2},{3,4}}', NULL);
UPDATE plain SET n = n + 1 WHERE id = 1;
UPDATE plain SET id = 20 WHERE id = 2;
DELETE FROM plain WHERE id = 3;
INSERT INTO "Odd Names"."Ünï""q" VALUES (1, 'no identity');
INSERT INTO full_row VALUES (1, 'a'), (1, 'a'), (NULL, NULL);
UPDATE full_row SET v = 'b' WHERE ctid = (SELECT min(ctid) FROM full_row);
DELETE FROM full_row WHERE id IS NULL;
INSERT INTO by_index VALUES (1, 'x', 1), (2, 'y', 2);
UPDATE by_index SET id = 10 WHERE id = 1;
UPDATE by_index SET code = 'z' WHERE id = 2;
DELETE FROM by_index WHERE code = 'z';
INSERT INTO nothing DEFAULT VALUES;

-- TOAST: unchanged, then changed with the key, then under FULL.
INSERT INTO toasted VALUES (1, repeat('x', 3000), 1);
UPDATE toasted SET small = 2;
UPDATE toasted SET id = 2;
ALTER TABLE toasted REPLICA IDENTITY FULL;
UPDATE toasted SET small = 3;
DELETE FROM toasted;

-- A partitioned table through its root; the leaf has another column order.
INSERT INTO part VALUES (1, '2026-01-15', 'one'), (2, '2026-02-15', 'two');
UPDATE part SET day = '2026-02-16' WHERE id = 1;
DELETE FROM part WHERE id = 2;
TRUNCATE part;

TRUNCATE full_row, by_index RESTART IDENTITY CASCADE;
TRUNCATE plain;

-- Schema changes show as a new Relation before the next row.
ALTER TABLE bulk ADD COLUMN extra varchar(7) DEFAULT 'd';
INSERT INTO bulk VALUES (-1, 0, 'after');
ALTER TABLE bulk DROP COLUMN extra;
INSERT INTO bulk VALUES (-2, 0);

-- Messages, also outside any transaction and from one that is rolled back.
SELECT pg_logical_emit_message(true, 'firn', 'within');
SELECT pg_logical_emit_message(false, 'firn', 'outside');
BEGIN;
SELECT pg_logical_emit_message(false, 'firn', 'outside, though the transaction aborts');
SELECT pg_logical_emit_message(true, 'firn', 'never seen');
INSERT INTO bulk VALUES (-3, 0);
ROLLBACK;

-- A transaction that began elsewhere.
SELECT pg_replication_origin_create('elsewhere');
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('1/2345', '2026-11-23 02:00:00+00');
INSERT INTO plain (id) VALUES (100);
COMMIT;
SELECT pg_replication_origin_session_reset();

-- Subtransactions.
BEGIN;
INSERT INTO plain (id) VALUES (101);
SAVEPOINT s;
INSERT INTO plain (id) VALUES (102);
ROLLBACK TO s;
INSERT INTO plain (id) VALUES (103);
COMMIT;

-- Two large transactions that interleave, with a small one in between; large
-- means more than logical_decoding_work_mem, so that they can be streamed.
-- @b
BEGIN;
INSERT INTO bulk SELECT i, i FROM generate_series(1, 500) i;
-- @c
BEGIN;
INSERT INTO bulk SELECT i, i FROM generate_series(1001, 1500) i;
SELECT pg_logical_emit_message(true, 'firn', 'in a large transaction');
-- @a
INSERT INTO plain (id, t) VALUES (200, 'between');
-- @b
SAVEPOINT s;
UPDATE bulk SET v = -v WHERE id BETWEEN 1 AND 500;
ROLLBACK TO s;
INSERT INTO full_row SELECT 7, NULL FROM generate_series(1, 400);
-- @c
SAVEPOINT s;
DELETE FROM bulk WHERE id > 1000;
RELEASE s;
TRUNCATE by_index;
-- @b
COMMIT;
-- @c
INSERT INTO bulk VALUES (2000, 1);
COMMIT;

-- A large one that is rolled back.
-- @b
BEGIN;
INSERT INTO bulk SELECT i, i FROM generate_series(3001, 3500) i;
-- @a
INSERT INTO plain (id, t) VALUES (201, 'between');
-- @b
INSERT INTO bulk SELECT i, i FROM generate_series(4001, 4500) i;
ROLLBACK;
-- @a
INSERT INTO plain (id, t) VALUES (202, 'last');

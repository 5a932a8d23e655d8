-- A slot with two_phase sends messages that are refused.

-- @a
CREATE TABLE t (id int PRIMARY KEY);
CREATE PUBLICATION cap FOR ALL TABLES;
SELECT pg_create_logical_replication_slot('cap', 'pgoutput', false, true);
BEGIN;
INSERT INTO t VALUES (1);
PREPARE TRANSACTION 'one';
COMMIT PREPARED 'one';
BEGIN;
INSERT INTO t VALUES (2);
PREPARE TRANSACTION 'two';
ROLLBACK PREPARED 'two';
INSERT INTO t VALUES (3);

#!/bin/sh
# A table on disk with an index, a transaction that is taken back, and a check of the file.
set -eu
sqlite3 /data/test.db <<'SQL'
CREATE TABLE numbers(n INTEGER PRIMARY KEY, square INTEGER, name TEXT);
WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 500)
  INSERT INTO numbers SELECT n, n * n, 'number ' || n FROM c;
CREATE INDEX by_name ON numbers(name);
BEGIN; DELETE FROM numbers; ROLLBACK;
SQL
test "$(sqlite3 /data/test.db 'SELECT sum(square) FROM numbers')" = 41791750
test "$(sqlite3 /data/test.db "SELECT n FROM numbers WHERE name = 'number 321'")" = 321
test "$(sqlite3 /data/test.db 'PRAGMA integrity_check')" = ok
if sqlite3 /data/test.db 'INSERT INTO numbers VALUES (1, 1, NULL)' 2>/dev/null; then exit 1; fi
echo ok

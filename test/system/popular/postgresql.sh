#!/bin/sh
# A cluster is made, started, filled, asked, and stopped as its manual says.
set -eu
PATH=/usr/lib/postgresql/15/bin:$PATH
# Without TZ initdb tries all time zones that there are, one file after the other.
export PGHOST=/tmp PGDATABASE=postgres TZ=UTC
# Each segment of the write-ahead log is filled with zeros: 1 MiB of them, not 16.
initdb -D /data/cluster -A trust --no-sync --no-locale -E UTF8 --wal-segsize=1 >&2
pg_ctl -D /data/cluster -o "-c listen_addresses='' -k /tmp -c shared_buffers=16MB" -l /tmp/log -w -t 900 -s start ||
  { cat /tmp/log; exit 1; }
psql -q -v ON_ERROR_STOP=1 <<'SQL'
CREATE TABLE accounts(id int PRIMARY KEY, owner text NOT NULL, amount numeric CHECK (amount >= 0));
INSERT INTO accounts SELECT n, 'owner ' || n, n * 1.5 FROM generate_series(1, 500) AS n;
BEGIN; UPDATE accounts SET amount = 0; ROLLBACK;
SQL
test "$(psql -At -c 'SELECT count(*), sum(amount) FROM accounts')" = '500|187875.0'
test "$(psql -At -c "SELECT owner FROM accounts WHERE id = 77")" = 'owner 77'
if psql -q -c 'INSERT INTO accounts VALUES (501, NULL, 1)' 2>/dev/null; then exit 1; fi
pg_ctl -D /data/cluster -w -t 900 -s -m fast stop
echo ok

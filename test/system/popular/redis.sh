#!/bin/sh
# A thousand keys are set and read back, in order; one that was never set is not there.
# One client for all of it: where the guest's kernel is interpreted, a program takes seconds to start.
set -eu
trap 'test $? = 0 || cat /tmp/redis.log /tmp/got' EXIT
redis-server --bind 127.0.0.1 --port 6379 --save '' --appendonly no --logfile /tmp/redis.log &
server=$!
until grep -q 'Ready to accept connections' /tmp/redis.log 2>/dev/null; do
  kill -0 "$server"
  sleep 0.2
done
redis-cli </data/commands >/tmp/got
cmp /tmp/got /data/answers
kill "$server"
wait "$server"
echo ok

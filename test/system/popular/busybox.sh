#!/bin/sh
# httpd serves three files and says of one that it is not there; wget fetches them.
set -eu
mkdir /srv/www /tmp/got
for i in $(seq 3); do seq "$i" 500 >"/srv/www/$i"; done
httpd -p 127.0.0.1:8080 -h /srv/www # listens before it goes into the background
for i in $(seq 3); do
  wget -q -O "/tmp/got/$i" "http://127.0.0.1:8080/$i"
  cmp "/srv/www/$i" "/tmp/got/$i"
done
if wget -q -O /dev/null http://127.0.0.1:8080/4; then exit 1; fi
echo ok

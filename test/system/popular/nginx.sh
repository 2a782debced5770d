#!/bin/sh
# A hundred files by two workers that gave up root; what is not there is not found.
set -eu
mkdir /srv/www /tmp/got
for i in $(seq 100); do seq "$i" 400 >"/srv/www/$i"; done
cat >/tmp/nginx.conf <<'CONF'
user www-data;
worker_processes 2;
pid /tmp/nginx.pid;
error_log stderr error;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server { listen 127.0.0.1:8080; root /srv/www; }
}
CONF
nginx -c /tmp/nginx.conf # listens before it goes into the background
for i in $(seq 100); do
  wget -q -O "/tmp/got/$i" "http://127.0.0.1:8080/$i"
  cmp "/srv/www/$i" "/tmp/got/$i"
done
if wget -q -O /dev/null http://127.0.0.1:8080/101; then exit 1; fi
nginx -c /tmp/nginx.conf -s quit 2>/dev/null
echo ok

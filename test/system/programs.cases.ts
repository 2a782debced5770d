/** Programs that people run, from Debian's packages, as they are run: asked from outside, killed, started again. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, get } from 'node:http'
import { before, suite, test } from 'node:test'
import { missing } from '../peers/images-programs.ts'
import { freePort } from './free-port.ts'
import type { Machine, SpawnHost } from './harness.ts'
import { buildDisk, type DiskFile } from './images.ts'
import { type Running, run, sh, start } from './launch.ts'
import { at } from './network.cases.ts'
import { debianLayer } from './popular/debian-layer.ts'
import { baseLayer } from './popular/images.ts'

const IN_FLIGHT = 8
/** Of postgresql: what compiles queries, and Debian's scripts around it. */
const UNUSED = [
  'libllvm14',
  'libz3-4',
  'locales',
  'postgresql-client-common',
  'postgresql-common',
  'ssl-cert',
]
const OF_SERVERS = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_NET_BIND_SERVICE',
  'CAP_SETGID',
  'CAP_SETUID',
] as const

const NGINX = `cat > /tmp/nginx.conf <<'CONF'
user www-data;
worker_processes 2;
pid /tmp/nginx.pid;
error_log stderr error;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server { listen 80; root /srv; location / { return 200 "you asked for $uri\\n"; } }
}
CONF
nginx -c /tmp/nginx.conf # listens before it goes into the background
trap 'nginx -c /tmp/nginx.conf -s quit; exit 0' TERM
echo ready; while :; do sleep 0.1; done`

/** A cluster of which the first process is killed while another writes, and what it has said that it has, it has. */
const POSTGRES = `set -e; PATH=/usr/lib/postgresql/15/bin:$PATH; export PGHOST=/tmp PGDATABASE=postgres TZ=UTC
initdb -D /data/cluster -A trust --no-locale -E UTF8 --wal-segsize=1 >&2
begin() { pg_ctl -D /data/cluster -o "-c listen_addresses='' -k /tmp -c shared_buffers=16MB" -l /data/log -w -s start; }
begin
psql -q -v ON_ERROR_STOP=1 -c 'CREATE TABLE t(id int PRIMARY KEY)'
psql -q -c 'INSERT INTO t SELECT generate_series(1, 500)'
(i=500; while i=$((i + 1)); psql -q -c "INSERT INTO t VALUES ($i)" 2>/dev/null; do echo $i > /data/last; done) &
until [ -s /data/last ]; do sleep 0.05; done
kill -9 $(head -n 1 /data/cluster/postmaster.pid); wait
# Its children end when they notice.
until begin 2>/dev/null; do sleep 0.1; done
psql -At -c "SELECT count(*) >= $(cat /data/last), max(id) = count(*) FROM t"
pg_ctl -D /data/cluster -w -s -m fast stop; grep -o 'automatic recovery in progress' /data/log`

/** Asks for so many paths, each over a connection of its own, a few at a time. @returns the answers */
async function ask(port: number, count: number): Promise<readonly string[]> {
  const agent = new Agent({ keepAlive: false, maxSockets: IN_FLIGHT })
  const one = async (number: number): Promise<string> => {
    const asked = get({ agent, host: '127.0.0.1', port, path: `/${number}` })
    const [answer] = await once(asked, 'response')
    let text = `${answer.statusCode} `
    for await (const chunk of answer) text += String(chunk)
    return text
  }
  return await Promise.all(Array.from({ length: count }, (_, number) => one(number)))
}

export function programCases(machine: Machine): void {
  const reason = missing('apt-get', 'dpkg-deb')
  suite('system/programs', { concurrency: 1, skip: reason ?? false }, () => {
    let on: SpawnHost
    const disk = async (name: string, of: string, without?: readonly string[]): Promise<DiskFile> =>
      await buildDisk(machine.place(name), debianLayer([of], without), baseLayer())
    /** A server, the so many-th of its network, whose port is one of the host's. */
    const serve = async (
      image: DiskFile,
      [number, pod]: readonly [number, number],
      script: string,
    ): Promise<{ server: Running; host: number }> => {
      const host = await freePort()
      const ports = [{ address: '127.0.0.1', host, pod, protocol: 'tcp' }] as const
      const network = at(number, { gateways: ['10.88.0.1'], ports })
      const args = sh(`export PATH=/usr/sbin:/usr/bin:/bin; ${script}`)
      const capabilities = OF_SERVERS
      const server = await start(machine, { args, image, on, network, capabilities })
      await server.says(/ready/u)
      return { server, host }
    }
    before(async () => {
      on = await machine.another('programs', {})
    })

    test('nginx answers 1,000 requests through a published port', async () => {
      const image = await disk('nginx', 'nginx-light')
      const { server, host } = await serve(image, [2, 80], NGINX)
      const answers = await ask(host, 1000)
      assert.deepEqual(
        answers,
        answers.map((_, number) => `200 you asked for /${number}\n`),
      )
      await on.spawn.stop(server.pod, 10_000)
      const ended = await server.end()
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'code 0', ended.stderr)
    })

    test('python3 serves files over HTTP', async () => {
      const image = await disk('python', 'python3')
      const script = `for i in $(seq 0 99); do echo "file $i" > /srv/$i; done
        exec python3 -u -c 'import http.server as h, functools as f
s = h.ThreadingHTTPServer(("", 8000), f.partial(h.SimpleHTTPRequestHandler, directory="/srv"))
print("ready"); s.serve_forever()'`
      const { server, host } = await serve(image, [3, 8000], script)
      const answers = await ask(host, 100)
      assert.deepEqual(
        answers,
        answers.map((_, number) => `200 file ${number}\n`),
      )
      await on.spawn.kill(server.pod)
      await server.end()
    })

    test('postgresql has all that it said it had, after its first process was killed', async () => {
      const image = await disk('postgresql', 'postgresql-15', UNUSED)
      const shape = { vcpus: 1, memoryMib: 256 }
      const ended = await run(machine, { args: sh(POSTGRES), image, on, shape, user: 'postgres' })
      assert.equal(ended.stdout, 't|t\nautomatic recovery in progress\n', ended.stderr)
    })
  })
}

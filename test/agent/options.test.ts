/**
 * Every option of a launch at every level: it works, shown by what spawn is given to start, or it is refused with a
 * code. docs/options.md has what came of it; UPDATE_GOLDEN=1 writes it anew, and the difference is read before it is
 * committed. A new option gets a row here.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { member } from './harness.ts'
import { type PodHost, podHost } from './pod-host.ts'
import { DESCRIPTION } from './spawn-peer.ts'

const FILE = path.join(import.meta.dirname, '../../docs/options.md')
const LEVELS = ['vm', 'container', 'host'] as const

interface Option {
  /** As the command line has it. */
  readonly option: string
  readonly body: object
  /** What the spec has for it then; null: nothing, the agent alone keeps it. */
  readonly at: readonly string[] | null
  readonly shows?: unknown
  /** The same below level vm, where the spec has another place for it. */
  readonly below?: { readonly at: readonly string[]; readonly shows: unknown }
  /** It is about the network that a pod has: its tenant's, or at level host the host's. */
  readonly ways?: true
}

const process = (...names: readonly string[]): readonly string[] => [
  'apps',
  '0',
  'process',
  ...names,
]

const OPTIONS: readonly Option[] = [
  {
    option: '--vcpus',
    body: { vcpus: 2 },
    at: ['machine', 'vcpus'],
    shows: 2,
    below: { at: ['limits', 'cpu_quota_percent'], shows: 200 },
  },
  {
    option: '--memory',
    body: { memory_mib: 256 },
    at: ['machine', 'memory_mib'],
    shows: 256,
    below: { at: ['container', 'memory_mib'], shows: 256 },
  },
  { option: '--hostname', body: { hostname: 'h' }, at: ['hostname'], shows: 'h' },
  {
    option: '--entrypoint',
    body: { entrypoint: ['/x'], args: ['y'] },
    at: process('args'),
    shows: ['/x', 'y'],
  },
  {
    option: '--env, --env-file',
    body: { env: ['PATH=/x'] },
    at: process('env'),
    shows: ['PATH=/x'],
  },
  { option: '--workdir', body: { cwd: '/w' }, at: process('cwd'), shows: '/w' },
  { option: '--user', body: { user: '7:8' }, at: process('user'), shows: '7:8' },
  { option: '--group-add', body: { groups: [9] }, at: process('additional_gids'), shows: [9] },
  {
    option: '--ulimit',
    body: { ulimits: ['nofile=5'] },
    at: process('rlimits'),
    shows: [{ type: 'RLIMIT_NOFILE', soft: 5, hard: 5 }],
  },
  {
    option: '--cap-add',
    body: { capabilities_add: ['CAP_AUDIT_WRITE'] },
    at: process('capabilities', 'bounding', '0'),
    shows: 'CAP_AUDIT_WRITE',
  },
  {
    option: '--cap-drop',
    body: { capabilities_drop: ['CAP_AUDIT_WRITE'] },
    at: process('capabilities', 'bounding', '0'),
    shows: 'CAP_CHOWN',
  },
  {
    option: '--read-only',
    body: { read_only_root: true },
    at: ['apps', '0', 'read_only_root'],
    shows: true,
  },
  {
    option: '--tmpfs',
    body: { mounts: [{ type: 'tmpfs', target: '/x', size_bytes: 4096, mode: '700' }] },
    at: ['apps', '0', 'mounts'],
    shows: [{ exec: true, kind: 'tmpfs', mode: 0o700, path: '/x', read_only: false, size: 4096 }],
  },
  {
    option: '--mount type=empty',
    body: { mounts: [{ type: 'empty', target: '/x' }] },
    at: ['apps', '0', 'mounts'],
    shows: [{ kind: 'empty', mode: 0o1777, name: null, path: '/x' }],
  },
  {
    option: '--file, --config, --secret',
    body: { files: [{ content: 'eA==', target: '/x' }] },
    at: ['apps', '0', 'mounts'],
    shows: [{ gid: 0, kind: 'file', mode: 0o444, path: '/x', size: 1, uid: 0 }],
  },
  {
    option: '--volume, --mount type=volume',
    body: { mounts: [{ type: 'volume', volume: 'data', target: '/x', read_only: true }] },
    at: ['apps', '0', 'mounts'],
    shows: [{ kind: 'volume', name: 'data', path: '/x', read_only: true, sub_path: null }],
  },
  {
    option: '--mount type=volume,subpath=',
    body: { mounts: [{ type: 'volume', volume: 'data', sub_path: 'a/b', target: '/x' }] },
    at: ['apps', '0', 'mounts'],
    shows: [{ kind: 'volume', name: 'data', path: '/x', read_only: false, sub_path: 'a/b' }],
  },
  {
    option: '--mount type=host',
    body: {
      mounts: [{ type: 'host', host_path: 'models', sub_path: 'a', target: '/x', read_only: true }],
    },
    at: ['apps', '0', 'mounts'],
    shows: [
      {
        exec: false,
        ids: null,
        kind: 'host',
        name: 'models',
        path: '/x',
        read_only: true,
        sub_path: 'a',
      },
    ],
  },
  {
    option: '--shm-size',
    body: { shm_bytes: 8192 },
    at: ['apps', '0', 'mounts'],
    shows: [
      { exec: false, kind: 'tmpfs', mode: 0o1777, path: '/dev/shm', read_only: false, size: 8192 },
    ],
  },
  {
    option: '--sysctl',
    body: { sysctls: { 'net.core.somaxconn': '9' } },
    at: ['sysctls'],
    shows: [{ name: 'net.core.somaxconn', value: '9' }],
  },
  {
    option: '--network default',
    body: { network: 'default' },
    at: ['network', 'mtu'],
    shows: 1500,
  },
  { option: '--network none', body: { network: 'none' }, at: ['network'], shows: undefined },
  { option: '--network host', body: { network: 'host' }, at: ['network'], shows: undefined },
  {
    option: '--publish',
    body: { publish: ['8080:80'] },
    ways: true,
    at: ['network', 'ports'],
    shows: [{ address: '127.0.0.1', host: 8080, pod: 80, protocol: 'tcp' }],
  },
  {
    option: '--egress',
    body: { egress: ['10.1.2.0/24'] },
    ways: true,
    at: ['network', 'egress', 'rules', '0', 'cidr'],
    shows: '10.1.2.0/24',
  },
  {
    option: '--dns',
    body: { nameservers: ['10.1.2.3'] },
    ways: true,
    at: ['network', 'names', 'nameservers'],
    shows: ['10.1.2.3'],
  },
  {
    option: '--dns-search',
    body: { search: ['example.com'] },
    ways: true,
    at: ['network', 'names', 'search'],
    shows: ['example.com'],
  },
  {
    option: '--add-host',
    body: { hosts: ['db:10.1.2.3'] },
    ways: true,
    at: ['network', 'names', 'hosts'],
    shows: [{ address: '10.1.2.3', name: 'db' }],
  },
  {
    option: '--stop-signal',
    body: { stop_signal: 'USR1' },
    at: ['apps', '0', 'stop_signal'],
    shows: 10,
  },
  { option: '--stop-timeout', body: { stop_timeout_ms: 5 }, at: ['limits', 'stop_ms'], shows: 5 },
  {
    option: '--health-cmd',
    body: { health: { command: ['/bin/sh', '-c', 'true'] } },
    at: ['apps', '0', 'health', 'probe', 'args', '2'],
    shows: 'true',
  },
  {
    option: '--health-tcp',
    body: { health: { tcp: 80 } },
    at: ['apps', '0', 'health', 'probe'],
    shows: { kind: 'tcp', port: 80 },
  },
  {
    option: '--health-http',
    body: { health: { http: { port: 80, path: '/live' } } },
    at: ['apps', '0', 'health', 'probe'],
    shows: { kind: 'http', path: '/live', port: 80 },
  },
  {
    option: '--health-interval, -timeout, -retries',
    body: { health: { tcp: 80, interval_ms: 1000, timeout_ms: 2000, retries: 4 } },
    at: ['apps', '0', 'health', 'retries'],
    shows: 4,
  },
  {
    option: '--health-start-period, -start-interval',
    body: { health: { tcp: 80, start_period_ms: 1000, start_interval_ms: 2000 } },
    at: ['apps', '0', 'health', 'start_period_ms'],
    shows: 1000,
  },
  {
    option: '--no-healthcheck',
    body: { health: { disabled: true } },
    at: ['apps', '0', 'health'],
    shows: null,
  },
  {
    option: '--on-unhealthy',
    body: { health: { tcp: 80, on_unhealthy: 'stop' } },
    at: null,
  },
  { option: '--restart', body: { restart: 'always' }, at: null },
  { option: '--name', body: { name: 'n' }, at: null },
  { option: '--label', body: { labels: { a: 'b' } }, at: null },
  { option: '--annotation', body: { annotations: { a: 'b' } }, at: null },
]

/** `yes`, or the code of the refusal. */
async function tried(
  host: PodHost,
  { body, at, shows, below, ways }: Option,
  isolation: string,
): Promise<string> {
  const before = host.started.length
  // Level host is asked for with the host's network, or not had.
  const network = isolation === 'host' ? 'host' : ways === true ? 'default' : 'none'
  const reply = await host.launch('acme', undefined, { network, ...body, isolation })
  if (reply.status !== 201) return `\`${String(member(reply.json, 'code'))}\``
  const { spec } = host.started[before] ?? assert.fail('nothing was started')
  const wanted = isolation !== 'vm' && below !== undefined ? below : { at, shows }
  if (wanted.at !== null)
    assert.deepEqual(member(spec, ...wanted.at), wanted.shows, wanted.at.join('.'))
  const pod = String(member(reply.json, 'id'))
  assert.equal((await host.post(`${pod}/stop`)).status, 202)
  await host.until('its end', async () =>
    member(await host.inspect(pod), 'state') === 'exited' ? true : null,
  )
  return 'yes'
}

async function table(host: PodHost): Promise<string> {
  const lines = [`| option of \`run\` | ${LEVELS.join(' | ')} |`, '|---|---|---|---|']
  for (const option of OPTIONS) {
    const cells: string[] = []
    // oxlint-disable-next-line no-await-in-loop -- one launch after the other
    for (const level of LEVELS) cells.push(await tried(host, option, level))
    lines.push(`| \`${option.option}\` | ${cells.join(' | ')} |`)
  }
  return `${lines.join('\n')}\n`
}

suite('agent/options', () => {
  test('docs/options.md says of each option at each level what comes of it', async (t) => {
    const host = await podHost(t)
    // Of a tenant that policy and root let run at every level.
    const levels = { acme: ['container', 'host'] }
    const digest = `sha256:${'c'.repeat(64)}`
    const container = { bundle: digest, digest, runtime: digest, version: 'runc version 1' }
    const data = { volume: 'data', snapshot: null, size_bytes: 2 ** 26, used_bytes: 0, made_ms: 0 }
    host.agent.spawn.answer('volumes', () => ({
      ok: true,
      volumes: [{ ...data, machine: false, pod: null }],
    }))
    host.agent.spawn.answer('describe', () => ({
      ...DESCRIPTION,
      levels,
      host_paths: { models: { exec: false, ids: null, tenants: ['acme'] } },
      container,
      container_reason: null,
    }))
    const quotas = { vcpus: 100, memory_mib: 100_000, pods: 100, launches_per_minute: 1000 }
    const ways = { egress: ['internet', '10.0.0.0/8'], ports: ['8000-8099'] }
    const body = { trust: 'trusted', quotas, ...ways }
    const tenant = { method: 'PATCH', path: '/v1/tenants/acme', body } as const
    const changed = await host.agent.operator(tenant)
    assert.equal(changed.status, 200, changed.text)
    const found = await table(host)
    const document = readFileSync(FILE, 'utf8')
    const [before = '', after = ''] = document.split(/(?<=<!-- table -->\n)[^]*?(?=<!-- end -->)/u)
    const written = `${before}${found}${after}`
    if (globalThis.process.env['UPDATE_GOLDEN'] === '1') writeFileSync(FILE, written)
    else assert.equal(document, written)
  })
})

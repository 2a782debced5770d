import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import {
  decide,
  ISOLATION_LEVELS,
  type LaunchQuestion,
  type LaunchRequest,
  type MountWords,
  parseFileName,
  parseFiles,
  parseHosts,
  parseMounts,
  parseSysctls,
  Refusal,
  SYSCTLS,
  TENANT_NETWORK,
} from '../../policy/index.ts'
import { defaults, host, image, policiesWith, question, request, tenant } from './fixtures.ts'

const MIB = 2 ** 20
const mounts = (...words: readonly MountWords[]): Pick<LaunchRequest, 'mounts'> => ({
  mounts: parseMounts(words, undefined),
})

/** Paths of the plan's mounts with their kinds, or the code of the refusal. */
function planned(
  changes: Partial<LaunchRequest>,
  volumes: readonly string[] = [],
  sizes: readonly number[] = [],
): string {
  const files = sizes.map((size) => ({ stored: null, size }))
  const facts = image()
  const config = { ...facts.config, volumes }
  const withVolumes = { ...facts, config }
  const outcome = decide(
    question({ request: request(changes), image: withVolumes, files }),
    defaults,
  )
  if (outcome instanceof Refusal) return outcome.code
  return outcome.mounts.map(({ kind, path: at }) => `${kind} ${at}`).join(', ')
}

suite('policy/mounts', () => {
  test('takes a place in the pod by one spelling, and none of the kernel’s', () => {
    const at = (target: string): void => void parseMounts([{ type: 'empty', target }], undefined)
    for (const target of ['/x', '/var/lib/x', '/..x', '/devices', `/${'a'.repeat(255)}`]) at(target)
    const relative = ['', '/', 'x', '/x/', '/x//y', '/./x', '/x/..', '/x\0', `/${'a'.repeat(256)}`]
    const kernel = ['/proc', '/proc/sys/x', '/sys', '/dev', '/dev/pts', '/dev/shm', '/dev/shm/x']
    for (const target of [...relative, ...kernel]) {
      assert.throws(() => at(target), { name: 'BadNoun' }, target)
    }
  })

  test('refuses what a kind of mount does not have', () => {
    for (const words of [
      { type: 'tmpfs', medium: 'memory' },
      { type: 'empty', size_bytes: 4096 },
      { type: 'empty', read_only: true },
      { type: 'empty', medium: 'memory', exec: false },
      { type: 'tmpfs', size_bytes: 4095 },
      { type: 'tmpfs', size_bytes: 2 ** 35 },
      { type: 'tmpfs', mode: '4755' },
      { type: 'tmpfs', mode: '888' },
      { type: 'tmpfs', mode: '' },
      { type: 'empty', sub_path: 'a' },
      { type: 'tmpfs', volume: 'data' },
      { type: 'empty', host_path: 'models' },
      { type: 'volume', volume: 'data', host_path: 'models' },
      { type: 'volume', host_path: 'models' },
      { type: 'volume', volume: 'data', mode: '700' },
      { type: 'host', host_path: 'models', volume: 'data' },
      { type: 'host', volume: 'data' },
      { type: 'host' },
      { type: 'host', host_path: 'models', exec: true },
      { type: 'host', host_path: '/etc' },
      { type: 'host', host_path: '../etc' },
    ] as const) {
      const call = (): unknown => parseMounts([{ target: '/x', ...words }], undefined)
      assert.throws(call, { name: 'BadNoun' }, JSON.stringify(words))
    }
    assert.throws(() => parseMounts([], 1), { name: 'BadNoun' })
  })

  test('mounts the outer before the inner, whatever the order of the request', () => {
    const [x, y, z] = ['/x', '/x/y', '/x-z'].map((target) => ({ type: 'empty' as const, target }))
    assert.ok(x && y && z)
    assert.equal(planned(mounts(y, x, z)), 'empty /x, empty /x-z, empty /x/y')
    assert.equal(planned(mounts(x, y, x)), 'MOUNT_CONFLICT')
    const shm = parseMounts([], 8192)
    assert.equal(planned({ mounts: [...shm, ...shm] }), 'MOUNT_CONFLICT')
  })

  test('hides no names that the launch asks to have written', () => {
    const etc = (target: string, names: object): string =>
      planned({ ...mounts({ type: 'empty', target }), network: TENANT_NETWORK, ...names })
    const hosts = { hosts: parseHosts(['db:10.0.0.5']) }
    assert.equal(etc('/etc', hosts), 'MOUNT_CONFLICT')
    assert.equal(etc('/etc/hosts', hosts), 'MOUNT_CONFLICT')
    assert.equal(etc('/etc/resolv.conf', { search: ['example.org'] }), 'MOUNT_CONFLICT')
    assert.equal(etc('/etc/resolv.conf', hosts), 'empty /etc/resolv.conf')
    assert.equal(etc('/etc', {}), 'empty /etc')
  })

  test('bounds memory by the pod’s, half of it if nothing was said', () => {
    const outcome = decide(
      {
        tenant: tenant(),
        request: request(mounts({ type: 'tmpfs', target: '/x' })),
        image: image(),
        files: [],
        host: host(),
      },
      defaults,
    )
    assert.ok(!(outcome instanceof Refusal))
    const [mount] = outcome.mounts
    assert.ok(mount?.kind === 'tmpfs')
    assert.equal(mount.size, (outcome.memoryMib * MIB) / 2)
    const most = outcome.memoryMib * MIB
    const sized = (size_bytes: number): string =>
      planned(mounts({ type: 'empty', medium: 'memory', target: '/x', size_bytes }))
    assert.equal(sized(most), 'tmpfs /x')
    assert.equal(sized(most + 1), 'MOUNT_TOO_LARGE')
  })

  test('keeps the places that an image declares writable in a read-only root, and only there', () => {
    const readOnlyRoot = true
    const declared = ['/data/', '/data/inner', '/var/lib/x']
    assert.equal(planned({}, declared), '')
    assert.equal(planned({}, ['/proc', 'nonsense']), '')
    assert.equal(planned({ readOnlyRoot }, declared), 'image /data, image /var/lib/x')
    const asked = mounts({ type: 'empty', target: '/var' })
    assert.equal(planned({ readOnlyRoot, ...asked }, declared), 'image /data, empty /var')
    const inner = mounts({ type: 'empty', target: '/data/inner' })
    assert.equal(planned({ readOnlyRoot, ...inner }, ['/data']), 'image /data, empty /data/inner')
    for (const bad of ['/', '/proc/x', '../x', '', '/x/../y']) {
      assert.equal(planned({ readOnlyRoot }, [bad]), 'IMAGE_CONFIG_INVALID', bad)
    }
    const many = Array.from({ length: 33 }, (_, at) => `/v${at}`)
    assert.equal(planned({ readOnlyRoot }, many), 'MOUNT_CONFLICT')
  })
})

suite('policy/files', () => {
  const words = (...targets: readonly string[]): Partial<LaunchRequest> => ({
    files: parseFiles(targets.map((target) => ({ content: '', target }))),
  })

  test('mounts files among all others, with nothing in their way and nothing below them', () => {
    const { files = [] } = words('/x/a', '/etc/passwd')
    const asked = { files, ...mounts({ type: 'tmpfs', target: '/x' }) }
    assert.equal(planned(asked, [], [1, 2]), 'file /etc/passwd, tmpfs /x, file /x/a')
    assert.equal(planned(words('/x', '/x'), [], [1, 1]), 'MOUNT_CONFLICT')
    // Not beside each other when sorted.
    assert.equal(planned(words('/x', '/x-y', '/x/y'), [], [1, 1, 1]), 'MOUNT_CONFLICT')
    assert.equal(planned(words('/x', '/y'), [], [2 ** 19, 2 ** 19]), 'file /x, file /y')
    assert.equal(planned(words('/x', '/y'), [], [2 ** 19, 2 ** 19 + 1]), 'MOUNT_TOO_LARGE')
  })

  test('has each of the request’s files at the place that was asked for', () => {
    const asked = parseFiles([
      { secret: 'db', uid: 33 },
      { config: 'app.conf', mode: '640' },
      { content: 'eA==', target: '/a', mode: '0755' },
    ])
    const found = asked.map(({ path: at, mode, uid, source }) => [at, mode, uid, source.kind])
    assert.deepEqual(found, [
      ['/run/secrets/db', 0o400, 33, 'secret'],
      ['/run/config/app.conf', 0o640, 0, 'config'],
      ['/a', 0o755, 0, 'inline'],
    ])
  })

  test('refuses what is no file, or more than one', () => {
    for (const bad of [
      {},
      { config: 'x', secret: 'x' },
      { content: 'eA==' },
      { content: 'eA', target: '/x' },
      { content: 'e A==', target: '/x' },
      { secret: '../x' },
      { secret: '.x' },
      { secret: 'X' },
      { secret: 'x/y' },
      { secret: 'x', target: '/proc/x' },
      { secret: 'x', mode: '4755' },
      { secret: 'x', uid: 65_536 },
      { secret: 'x', gid: -1 },
      { content: Buffer.alloc(65_537).toString('base64'), target: '/x' },
    ]) {
      assert.throws(() => parseFiles([bad]), { name: 'BadNoun' }, JSON.stringify(bad).slice(0, 80))
    }
  })
})

suite('policy/sysctls', () => {
  test('lists the parameters that the spec may have, each with its reason', () => {
    const source = readFileSync(
      path.join(import.meta.dirname, '../../native/ticket/src/sysctls.rs'),
      'utf8',
    )
    const list = /NAMES: \[&str; \d+\] = \[([^\]]*)\]/u.exec(source)?.[1] ?? ''
    const names = [...list.matchAll(/"([a-z0-9_.]+)"/gu)].map(([, name]) => name)
    assert.deepEqual(Object.keys(SYSCTLS), names)
    for (const reason of Object.values(SYSCTLS)) assert.match(reason, /\bthe pod’s\b/u)
  })

  test('plans those, refuses all others and what is no parameter', () => {
    const sysctls = (name: string): string => planned({ sysctls: parseSysctls({ [name]: '1' }) })
    assert.equal(sysctls('net.core.somaxconn'), '')
    for (const name of [
      'kernel.core_pattern',
      'vm.swappiness',
      'net.core.rmem_max',
      'to.string',
      'constructor',
    ]) {
      assert.equal(sysctls(name), 'SYSCTL_NOT_PERMITTED', name)
    }
    for (const [name, value] of [
      ['net/core/somaxconn', '1'],
      ['', '1'],
      ['net.core.somaxconn', ''],
      ['net.core.somaxconn', '65536'],
      ['net.ipv4.tcp_wmem', '4096 16384 16777217'],
      ['net.core.somaxconn', '1\n2'],
    ] as const) {
      assert.throws(() => parseSysctls({ [name]: value }), { name: 'BadNoun' }, name)
    }
  })

  test('lets an operator’s policy forbid more: a parameter, and the use of a secret', () => {
    const site = policiesWith({
      'site.no-queues': `@reason("Queues stay as they are.")
forbid(principal, action == Casemate::Action::"launch", resource is Casemate::Pod)
when { context.sysctls.contains("net.core.somaxconn") };
`,
      'site.no-root-key': `@reason("Not for pods.")
forbid(principal, action == Casemate::Action::"launch", resource is Casemate::Pod)
when { context.files.contains("secret/root-key") };
`,
    })
    const asked = (changes: Partial<LaunchQuestion>): string => {
      const outcome = decide(question(changes), site)
      return outcome instanceof Refusal ? outcome.policyIds.join() : 'planned'
    }
    const setting = (name: string): string =>
      asked({ request: request({ sysctls: parseSysctls({ [name]: '1' }) }) })
    assert.equal(setting('net.core.somaxconn'), 'site.no-queues')
    assert.equal(setting('kernel.shmmni'), 'planned')
    const secret = (name: string): string => {
      const stored = { kind: 'secret', name: parseFileName(name), version: 'v' } as const
      const files = parseFiles([{ secret: name }])
      return asked({ request: request({ files }), files: [{ stored, size: 1 }] })
    }
    assert.equal(secret('root-key'), 'site.no-root-key')
    assert.equal(secret('key'), 'planned')
  })

  test('takes sub-paths that lead down, as native/ticket does', () => {
    const of = (sub: string): void =>
      void parseMounts([{ type: 'volume', volume: 'v', target: '/x', sub_path: sub }], undefined)
    for (const sub of ['a', 'a/b', '..a/.b', 'a b', `${'a/'.repeat(255)}aa`]) of(sub)
    const up = ['', '/', '/a', 'a/', 'a//b', '.', '..', 'a/..', '../a', 'a/./b', 'a\0b']
    for (const sub of [...up, 'a'.repeat(256), `${'a/'.repeat(256)}a`]) {
      assert.throws(() => of(sub), { name: 'BadNoun' }, sub)
    }
  })

  test('gives paths of the host to the tenants of root’s list, as it has them, and to containers', () => {
    const entry = { tenants: ['acme'], ids: null, exec: false }
    const hostPaths = {
      models: entry,
      data: { ...entry, ids: 3_000_000, exec: true },
      foreign: { ...entry, tenants: ['other', 'acmee'] },
    }
    const asked = (
      name: string,
      readOnly: boolean,
      changes: Partial<LaunchRequest> = {},
    ): unknown => {
      const words = { type: 'host', host_path: name, target: '/x', read_only: readOnly } as const
      const outcome = decide(
        question({
          tenant: tenant({ trust: 'trusted' }),
          request: request({ ...mounts(words), isolation: 'container', ...changes }),
          host: host({ hostPaths, levels: { acme: ['container'] }, launchers: ISOLATION_LEVELS }),
        }),
        defaults,
      )
      return outcome instanceof Refusal ? outcome.code : outcome.mounts
    }
    const common = { kind: 'host', path: '/x', subPath: null }
    const models = { ...common, name: 'models', readOnly: true, ids: null, exec: false }
    assert.deepEqual(asked('models', true), [models])
    for (const readOnly of [true, false]) {
      const data = { ...common, name: 'data', readOnly, ids: 3_000_000, exec: true }
      assert.deepEqual(asked('data', readOnly), [data])
    }
    assert.equal(asked('models', false), 'HOST_PATH_READ_ONLY')
    for (const name of ['foreign', 'unheard', 'constructor']) {
      assert.equal(asked(name, true), 'HOST_PATH_UNKNOWN', name)
    }
    assert.equal(asked('models', true, { isolation: 'vm' }), 'HOST_PATH_LEVEL')
    assert.equal(asked('models', true, { isolation: null }), 'HOST_PATH_LEVEL')
    const many = (count: number): unknown => {
      const words = Array.from({ length: count }, (_, at) => {
        return { type: 'host', host_path: 'models', target: `/x${at}`, read_only: true } as const
      })
      const found = asked('models', true, mounts(...words))
      return Array.isArray(found) ? found.length : found
    }
    assert.deepEqual([many(8), many(9)], [8, 'MOUNT_CONFLICT'])
  })
})

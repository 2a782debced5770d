import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import {
  decide,
  type LaunchRequest,
  type MountWords,
  parseMounts,
  parseSysctls,
  Refusal,
  SYSCTLS,
} from '../../policy/index.ts'
import { defaults, host, image, request, tenant } from './fixtures.ts'

const MIB = 2 ** 20
const mounts = (...words: readonly MountWords[]): Pick<LaunchRequest, 'mounts'> => ({
  mounts: parseMounts(words, undefined),
})

/** Paths of the plan's mounts with their kinds, or the code of the refusal. */
function planned(changes: Partial<LaunchRequest>, volumes: readonly string[] = []): string {
  const facts = image()
  const config = { ...facts.config, volumes }
  const question = {
    tenant: tenant(),
    request: request(changes),
    image: { ...facts, config },
    host: host(),
  }
  const outcome = decide(question, defaults)
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

  test('bounds memory by the pod’s, half of it if nothing was said', () => {
    const outcome = decide(
      {
        tenant: tenant(),
        request: request(mounts({ type: 'tmpfs', target: '/x' })),
        image: image(),
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
      ['net.core.somaxconn', '1\n2'],
    ] as const) {
      assert.throws(() => parseSysctls({ [name]: value }), { name: 'BadNoun' }, name)
    }
  })
})

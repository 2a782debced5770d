/** The VMM is worth nothing to who breaks it: what the host's kernel says of one that runs a guest. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { after, before as first, suite, test } from 'node:test'
import type { Machine } from './harness.ts'
import { probe, type Running, start } from './launch.ts'
import { filtersOn, statusOf, threadsOf } from './processes.ts'

const NAMESPACES = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts']
const SETS = ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']
const THREADS = ['casemate-vmm', 'io', 'vcpu0']

/** What each descriptor of a process is, without its number: `anon_inode:[eventfd]` and the like. */
const descriptorsOf = (pid: number): readonly (readonly [number, string])[] =>
  readdirSync(`/proc/${pid}/fd`).map(
    (name) => [Number(name), readlinkSync(`/proc/${pid}/fd/${name}`)] as const,
  )

export function jailCases(machine: Machine): void {
  suite('system/jail', { concurrency: 1 }, () => {
    let one: Running
    let two: Running

    first(async () => {
      const args = probe('say', 'up', 'hold')
      one = await start(machine, { args })
      two = await start(machine, { args, tenant: 'beta' })
      await Promise.all([one.says(/up/u), two.says(/up/u)])
    })
    after(async () => {
      await Promise.all([one, two].map(({ pod }) => machine.spawn.kill(pod)))
      await Promise.all([one.exit(), two.exit()])
    })

    test('every thread has its filter, no privilege and no way to get one', () => {
      const threads = threadsOf(one.pid)
      assert.deepEqual([...threads.values()].toSorted(), THREADS)
      // Two of spawn's, that of its start, and its own.
      const filtered = Object.fromEntries(THREADS.map((name) => [name, ['2', '4', '1']]))
      assert.deepEqual(filtersOn(one.pid), filtered)
      for (const tid of threads.keys()) {
        const status = statusOf(`/proc/${one.pid}/task/${tid}`)
        for (const set of SETS) assert.equal(status.get(set), '0000000000000000', `${tid} ${set}`)
        assert.equal(status.get('Groups'), '')
      }
    })

    test('each has a user of its own that is nobody else', () => {
      const ids = [one, two].map(({ pid }) => {
        const status = statusOf(`/proc/${pid}`)
        const [real, ...others] = (status.get('Uid') ?? '').split('\t')
        for (const id of others) assert.equal(id, real)
        const groups = (status.get('Gid') ?? '').split('\t')
        assert.deepEqual([...new Set(groups)], [real])
        return Number(real)
      })
      assert.ok(ids.every((id) => id > 0))
      assert.equal(new Set(ids).size, 2)
    })

    test('no namespace is shared with the host or with each other', () => {
      const of = (pid: number | 'self', name: string): string =>
        readlinkSync(`/proc/${pid}/ns/${name}`)
      for (const name of NAMESPACES) {
        const seen = ['self', one.pid, two.pid] as const
        assert.equal(new Set(seen.map((pid) => of(pid, name))).size, 3, name)
      }
    })

    test('its root is empty, its network has no interface that is up, its environment nothing', () => {
      const { pid } = one
      assert.deepEqual(readdirSync(`/proc/${pid}/root`), [])
      assert.equal(readlinkSync(`/proc/${pid}/cwd`), '/')
      assert.equal(readFileSync(`/proc/${pid}/mountinfo`, 'latin1').trim().split('\n').length, 1)
      assert.equal(readFileSync(`/proc/${pid}/environ`, 'latin1'), '')
      assert.equal(readFileSync(`/proc/${pid}/cmdline`, 'latin1'), 'casemate-vmm\0')
      const interfaces = readFileSync(`/proc/${pid}/net/dev`, 'latin1').trim().split('\n').slice(2)
      assert.deepEqual(
        interfaces.map((line) => line.split(':')[0]?.trim()).filter((name) => name !== 'lo'),
        [],
      )
      assert.equal(readFileSync(`/proc/${pid}/net/route`, 'latin1').trim().split('\n').length, 1)
    })

    test('it holds the descriptors of its launch and none beside', () => {
      const { prepared } = one
      const files = new Set([prepared.image.path, prepared.logPath])
      const known =
        /^(\/dev\/null|socket:\[\d+\]|anon_inode:(\[eventfd\]|\[eventpoll\]|\[timerfd\]|kvm-vm|kvm-vcpu:0))$/u
      const odd = descriptorsOf(one.pid).filter(
        ([, what]) => !known.test(what) && !files.has(what) && what !== machine.artifacts.init,
      )
      // Its scratch disk alone, which never had a name and is nobody else's.
      assert.equal(odd.length, 1, String(odd))
      assert.match(odd[0]?.[1] ?? '', / \(deleted\)$/u)
      const all = descriptorsOf(one.pid).map(([, what]) => what)
      assert.equal(all.filter((what) => what.startsWith('socket:')).length, 2, 'control and stream')
      assert.ok(!all.includes('/dev/kvm'), 'closed once the machine was made')
      for (const file of files) assert.equal(all.filter((what) => what === file).length, 1, file)
    })

    test('no page of it is writable and executable, and it maps neither image nor tree', () => {
      const maps = readFileSync(`/proc/${one.pid}/maps`, 'latin1').trim().split('\n')
      const modes = maps.map((line) => line.split(/\s+/u)[1] ?? '')
      assert.deepEqual(
        modes.filter((mode) => mode.includes('w') && mode.includes('x')),
        [],
      )
      for (const file of [one.prepared.image.path, machine.artifacts.init]) {
        assert.ok(!maps.some((line) => line.endsWith(file)), file)
      }
    })

    test('it is in a cgroup of its own with the limits of its spec', () => {
      const groups = readFileSync(`/proc/${one.pid}/cgroup`, 'latin1').trim().split('\n')
      const own = groups.filter((line) => line.includes(one.pod))
      assert.notEqual(own.length, 0, groups.join(' '))
      const places = own.flatMap((line) => {
        const [, controllers = '', below = ''] = line.split(':')
        const named = controllers.split(',').map((name) => `/sys/fs/cgroup/${name}${below}`)
        return [...named, `/sys/fs/cgroup${below}`].filter((place) => existsSync(place))
      })
      const limit = (names: readonly string[]): string | undefined =>
        places
          .flatMap((place) => names.map((name) => `${place}/${name}`))
          .filter((file) => existsSync(file))
          .map((file) => readFileSync(file, 'latin1').trim())[0]
      const mib = 128 + one.prepared.plan.limits.vmmOverheadMib
      assert.equal(limit(['memory.limit_in_bytes', 'memory.max']), String(mib << 20))
      assert.equal(limit(['pids.max']), String(one.prepared.plan.limits.pids))
      for (const place of places) {
        assert.equal(statSync(place).uid, 0, 'the VMM cannot raise its limits')
        assert.equal(readFileSync(`${place}/cgroup.procs`, 'latin1').trim(), String(one.pid))
      }
    })
  })
}

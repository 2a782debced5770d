/**
 * What only a container can get wrong: it shares the host's kernel, so what is checked is what it sees and can change of
 * the host, what of it is left when anything of it is killed, and who may have one at all.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import path from 'node:path'
import { before as first, suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Machine, SpawnHost } from './harness.ts'
import {
  type Ended,
  papers,
  prepare,
  probe,
  type Running,
  refusal,
  run,
  sh,
  start,
  submit,
} from './launch.ts'
import { isNamed } from './named.ts'

const RUNC = '/usr/sbin/runc'
const IDS = 65_536
const LOOK_MS = 10
const told = ({ exit }: Ended): string => `${exit.how} ${exit.value} ${exit.cause}`
const digestOf = (file: string): string =>
  createHash('sha256').update(readFileSync(file)).digest('hex')

const read = (file: string): string => {
  try {
    return readFileSync(file, 'latin1')
  } catch {
    return '' // it has just gone
  }
}

/** Directories of this name below each hierarchy's `casemate`. */
function groupsOf(pod: string): readonly string[] {
  const mounts = read('/proc/self/mounts').matchAll(/^\S+ (\S+) cgroup2? /gmu)
  return [...mounts].flatMap(([, root = '']) => {
    const top = path.join(root, 'casemate')
    const instances = existsSync(top) ? readdirSync(top, { withFileTypes: true }) : []
    return instances
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => path.join(top, name, pod))
      .filter((place) => existsSync(place))
  })
}

/** Loop devices of files in this folder. */
const loopsOf = (folder: string): readonly string[] =>
  readdirSync('/sys/block').filter((name) =>
    read(`/sys/block/${name}/loop/backing_file`).startsWith(folder),
  )

/** Processes of a container: their first user id is one of a range, of which the last one is the monitor's. */
const processesOf = (base: number): readonly string[] =>
  readdirSync('/proc').filter((name) => {
    const uid = Number(/^Uid:\t(\d+)/mu.exec(read(`/proc/${name}/status`))?.[1] ?? -1)
    return uid >= base && uid < base + IDS - 1
  })

const parentOf = (process: string): string =>
  /^PPid:\t(\d+)$/mu.exec(read(`/proc/${process}/status`))?.[1] ?? ''

/** First host id of a pod's range: of a process whose parent, the session, is the monitor's child. */
async function rangeOf({ pid }: Running): Promise<number> {
  // The runtime is in between until it has ended.
  for (let tries = 0; tries < 3000; tries += 1) {
    for (const name of readdirSync('/proc')) {
      if (!/^\d+$/u.test(name)) continue
      const base = /^ *0 +(\d+) +65535$/mu.exec(read(`/proc/${name}/uid_map`))?.[1]
      if (base !== undefined && parentOf(parentOf(name)) === String(pid)) return Number(base)
    }
    await sleep(LOOK_MS)
  }
  throw new Error(`the monitor ${pid} has no container`)
}

/** Waits until nothing of a pod is left on the host. */
async function gone(folder: string, pod: string, base: number): Promise<void> {
  const left = (): readonly string[] => [
    ...groupsOf(pod),
    ...loopsOf(folder),
    ...processesOf(base),
    ...(read('/proc/self/mountinfo').includes('lowerdir=image') ? ['a mount'] : []),
  ]
  for (let tries = 0; left().length > 0; tries += 1) {
    assert.ok(tries < 3000, `left of ${pod}: ${left().join(' ')}`)
    await sleep(LOOK_MS)
  }
}

/** What starts containers for this spawn. */
function starterOf({ program }: SpawnHost): number {
  const children = read(`/proc/${program.pid}/task/${program.pid}/children`).trim().split(' ')
  const found = children.find((pid) => read(`/proc/${pid}/cmdline`).includes('\0--starter\0'))
  assert.ok(found !== undefined, 'no starter')
  return Number(found)
}

export function containerCases(machine: Machine): void {
  const { spawn } = machine
  const up = async (host: SpawnHost): Promise<Running> => {
    const running = await start(machine, { args: probe('say', 'up', 'hold'), on: host })
    await running.says(/up/u)
    return running
  }

  suite('system/container', { concurrency: 1 }, () => {
    /** With no pods but of these tests. */
    let on: SpawnHost
    first(async () => {
      on = await machine.another('alone', {})
    })

    test('starts nothing for a tenant that root’s level file does not name, whatever the agent says', async () => {
      const other = await prepare(machine, { args: probe('hold'), tenant: 'beta' })
      assert.equal(await refusal(other, await papers(machine, other)), 'LEVEL_NOT_LISTED')
      const host = await prepare(machine, { args: probe('hold') }, (spec) => {
        spec['level'] = 'host'
      })
      const given = await papers(machine, { ...host, plan: { ...host.plan, level: 'host' } })
      assert.equal(await refusal(host, given), 'LEVEL_NOT_LISTED')
    })

    test('takes a ticket once, and for the container that was recorded', async () => {
      const prepared = await prepare(machine, { args: probe('say', 'once') })
      const given = await papers(machine, prepared)
      await (await submit(prepared, given)).end()
      assert.equal(await refusal(prepared, given), 'POD_EXISTS')
      await spawn.forget(prepared.pod)
      assert.equal(await refusal(prepared, given), 'TICKET_SPENT')
      for (const [name, code] of [
        ['bundle', 'SPEC_NOT_OF_THIS_HOST'],
        ['digest', 'SPEC_NOT_OF_THIS_HOST'],
        ['runtime', 'SPEC_NOT_OF_THIS_HOST'],
      ] as const) {
        const bent = await prepare(machine, { args: probe() }, (spec) => {
          spec['container'] = { ...Object(spec['container']), [name]: `sha256:${'0'.repeat(64)}` }
        })
        assert.equal(await refusal(bent, await papers(machine, bent)), code, name)
      }
      for (const [name, value] of [
        ['kvm', 'software'],
        ['machine', { vcpus: 1, memory_mib: 128, cmdline: 'x' }],
        ['container', null],
      ] as const) {
        const mixed = await prepare(machine, { args: probe() }, (spec) => {
          spec[name] = value
        })
        assert.equal(await refusal(mixed, await papers(machine, mixed)), 'SPEC_MALFORMED', name)
      }
    })

    test('runs no image with a byte that was not signed, and no byte that is changed under it', async () => {
      const image = { ...machine.image, path: machine.place('owned') }
      copyFileSync(machine.image.path, image.path)
      const running = await start(machine, {
        args: sh('echo up; read word; cat /data/text'),
        image,
      })
      await running.says(/up/u)
      // What an agent that was taken over can do: the file is its own.
      writeFileSync(image.path, Buffer.alloc(machine.image.size, 0x55))
      writeFileSync('/proc/sys/vm/drop_caches', '1')
      running.stream.stdin(Buffer.from('on\n'))
      const ended = await running.end()
      assert.equal(told(ended), 'code 0 APP_EXIT', ended.stderr)
      const good = await run(machine, { args: sh('echo up; cat /data/text') })
      assert.equal(ended.stdout, good.stdout)

      copyFileSync(machine.image.path, image.path)
      const file = openSync(image.path, 'r+')
      writeSync(file, Buffer.from([0x55]), 0, 1, 4096 * 3 + 17)
      const bent = await run(machine, { args: probe('say', 'hello'), image })
      assert.equal(`${bent.exit.how} ${bent.exit.cause}`, 'failure VERITY')
      assert.equal(bent.stdout, '')
    })

    test('shows nothing of the host: descriptors, mounts, ids, names, interfaces, processes', async () => {
      const script =
        'cat /proc/self/mountinfo; ls /sys/class/net; ifconfig lo | grep UP; ps -o pid,args'
      const ended = await run(machine, { args: sh(script) })
      assert.equal(told(ended), 'code 0 APP_EXIT', ended.stderr)
      const mounts = ended.stdout.split('\n').filter((line) => line.includes(' - '))
      assert.ok(mounts.length > 20)
      const [root = ''] = mounts
      assert.match(
        root,
        / \/ \/ rw,nodev,relatime - overlay overlay .*lowerdir=image,upperdir=scratch\/upper/u,
      )
      for (const word of ['/tmp', '/var', '/run', 'loop', 'ext4', 'erofs', machine.place('')]) {
        assert.ok(!ended.stdout.includes(word), word)
      }
      assert.match(ended.stdout, /^lo$/mu)
      assert.match(ended.stdout, /UP LOOPBACK RUNNING/u)
      assert.match(ended.stdout, /^ +1 \{ps\} \/bin\/sh -c/mu)
      assert.ok(!ended.stdout.includes('runc') && !ended.stdout.includes('casemate'))
    })

    test('a working directory or a program that is a descriptor leads nowhere (CVE-2024-21626, CVE-2019-5736)', async () => {
      const before = [RUNC, machine.artifacts.container].map(digestOf)
      for (let number = 0; number < 16; number += 1) {
        const cwd = `/proc/self/fd/${number}`
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        const ended = await run(machine, { args: probe('see', '../../../../etc/shadow'), cwd })
        assert.equal(`${ended.exit.how} ${ended.exit.cause}`, 'failure APP_START', cwd)
        assert.match(ended.exit.text ?? '', /^APP_CWD: /u)
      }
      for (const args of [
        ['/proc/self/exe'],
        ['/proc/1/exe', '--run', '0', '/', '/'],
        ['/proc/self/fd/3', '--app'],
      ]) {
        // oxlint-disable-next-line no-await-in-loop
        const ended = await run(machine, { args })
        assert.notEqual(told(ended), 'code 0 APP_EXIT', args.join(' '))
      }
      const script =
        'for f in /proc/self/exe /proc/1/exe; do echo "#!/bin/sh" > $f; done; echo tried'
      assert.match((await run(machine, { args: sh(script) })).stdout, /tried/u)
      assert.deepEqual([RUNC, machine.artifacts.container].map(digestOf), before)
    })

    test('masks are over what they mask, and take no other direction from the image (CVE-2025-31133, -52565, -52881)', async () => {
      const script = `
        for p in /proc/interrupts /proc/keys /proc/timer_list; do [ -c $p ] && [ -z "$(cat $p)" ] && echo "$p masked"; done
        for p in /proc/acpi /sys/firmware; do [ -z "$(ls $p)" ] && echo "$p empty"; done
        for p in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity; do
          (echo x > $p) 2>/dev/null || echo "$p closed"; done
        [ -e /dev/console ] || echo no console; umount /proc/keys 2>/dev/null || echo stays`
      const ended = await run(machine, { args: sh(script), capabilities: ['CAP_DAC_OVERRIDE'] })
      assert.equal(ended.stderr, '')
      const expected = [
        ...['interrupts', 'keys', 'timer_list'].map((name) => `/proc/${name} masked`),
        '/proc/acpi empty',
        '/sys/firmware empty',
        '/proc/sys/kernel/core_pattern closed',
        '/proc/sysrq-trigger closed',
        '/proc/irq/default_smp_affinity closed',
        'no console',
        'stays',
      ]
      assert.deepEqual(ended.stdout.trim().split('\n'), expected)
    })

    test('two at once have ranges of ids that overlap nowhere, and no way to each other', async () => {
      const [one, two] = [await up(on), await up(on)]
      const bases = [await rangeOf(one), await rangeOf(two)] as const
      assert.ok(Math.abs(bases[0] - bases[1]) >= IDS)
      for (const kind of ['user', 'mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup']) {
        const of = (base: number): string =>
          readlinkSync(`/proc/${processesOf(base)[0]}/ns/${kind}`)
        assert.equal(
          new Set([of(bases[0]), of(bases[1]), readlinkSync(`/proc/self/ns/${kind}`)]).size,
          3,
          kind,
        )
      }
      for (const running of [one, two]) await on.spawn.kill(running.pod)
      assert.deepEqual(
        [told(await one.end()), told(await two.end())],
        ['vmm 9 KILLED', 'vmm 9 KILLED'],
      )
      await gone(on.directory, one.pod, bases[0])
      await gone(on.directory, two.pod, bases[1])
    })

    test('a fork bomb, a full disk and a hoard of memory stay in the pod', async () => {
      const args = sh('echo up; f() { f | f & }; f; sleep 1000')
      const bomb = await start(machine, { args, on })
      await bomb.says(/up/u)
      const base = await rangeOf(bomb)
      while (((await on.spawn.usage(bomb.pod)).tasks ?? 0) < 60) await sleep(LOOK_MS)
      assert.ok(processesOf(base).length <= 64, 'as many as the spec says')
      await on.spawn.kill(bomb.pod)
      assert.equal(told(await bomb.end()), 'vmm 9 KILLED')
      await gone(on.directory, bomb.pod, base)

      const full = await run(machine, { args: probe('claim', String(2 ** 30), 'say', 'alive') })
      assert.match(full.stdout, /^claim \/claim ENOSPC\nalive\n$/u)
      const eaten = await run(machine, { args: probe('eat') })
      assert.equal(told(eaten), 'oom 9 APP_OOM', eaten.notes)
      isNamed(eaten.exit, 'RUNNING')
    })

    test('kills its own children, and goes on', async () => {
      const ended = await run(machine, { args: sh('sleep 1000 & (kill -9 -1); wait; echo alone') })
      assert.equal(`${told(ended)} ${ended.stdout}`, 'code 0 APP_EXIT alone\n')
    })

    test('a monitor that is killed takes everything with it', async () => {
      const running = await up(on)
      const base = await rangeOf(running)
      process.kill(running.pid, 'SIGKILL')
      const ended = await running.end()
      assert.equal(told(ended), 'vmm 9 VMM_SIGNAL')
      assert.equal(ended.exit.text, 'the monitor was killed by SIGKILL')
      await gone(on.directory, running.pod, base)
    })

    test('a starter that is killed takes nothing with it, and nothing is started without one', async () => {
      const starterless = await machine.another('starterless', {})
      const running = await up(starterless)
      const base = await rangeOf(running)
      process.kill(starterOf(starterless), 'SIGKILL')
      const next = await prepare(machine, { args: probe('hold'), on: starterless })
      assert.equal(await refusal(next, await papers(machine, next)), 'STARTER_GONE')
      await starterless.spawn.stop(running.pod, 0)
      assert.match(told(await running.end()), /^(?:signal 9 APP_SIGNAL|vmm 9 STOP_TIMEOUT)$/u)
      await gone(starterless.directory, running.pod, base)
      await starterless.program.end()
    })
  })
}

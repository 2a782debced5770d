/**
 * What only a container can get wrong: it shares the host's kernel, so what is checked is what it sees and can change of
 * the host, what of it is left when anything of it is killed, and who may have one at all.
 */
import assert from 'node:assert/strict'
import { readdirSync, readlinkSync } from 'node:fs'
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
} from './launch.ts'
import { gone, read } from './left.ts'

const told = ({ exit }: Ended): string => `${exit.how} ${exit.value} ${exit.cause}`
const IDS = 65_536
const LOOK_MS = 10
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

/** What starts containers for this spawn. */
function starterOf({ program }: SpawnHost): number {
  const children = read(`/proc/${program.pid}/task/${program.pid}/children`).trim().split(' ')
  const found = children.find((pid) => read(`/proc/${pid}/cmdline`).includes('\0--starter\0'))
  assert.ok(found !== undefined, 'no starter')
  return Number(found)
}

export function containerCases(machine: Machine): void {
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
      const wish = { args: probe('hold'), capabilities: ['CAP_CHOWN'] } as const
      const host = await prepare(machine, wish, (spec) => {
        spec['level'] = 'host'
      })
      const given = await papers(machine, { ...host, plan: { ...host.plan, level: 'host' } })
      assert.equal(await refusal(host, given), 'LEVEL_NOT_LISTED')
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
      await gone(on.directory, one.pod, () => processesOf(bases[0]))
      await gone(on.directory, two.pod, () => processesOf(bases[1]))
    })

    test('kills its own children, and goes on', async () => {
      const ended = await run(machine, { args: sh('sleep 1000 & (kill -9 -1); wait; echo alone') })
      assert.equal(`${told(ended)} ${ended.stdout}`, 'code 0 APP_EXIT alone\n')
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
      await gone(starterless.directory, running.pod, () => processesOf(base))
      await starterless.program.end()
    })
  })
}

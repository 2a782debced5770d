/**
 * What only a pod at level host is: a process of the host's with files of its own. What it shares is the host's very own,
 * what it does not share leads nowhere, and with its app's process all of it ends, although no namespace does that.
 */
import assert from 'node:assert/strict'
import { existsSync, readlinkSync, rmdirSync } from 'node:fs'
import { hostname } from 'node:os'
import path from 'node:path'
import { before as first, suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { asked, executions, listen, until } from './executions.ts'
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
import { appGroupsOf, gone, groupsOf, membersOf, read } from './left.ts'
import { at } from './network.cases.ts'

const SHARED = ['cgroup', 'net', 'pid', 'user', 'uts'] as const
const OWN = ['mnt', 'ipc'] as const
const LOOK_MS = 10
const told = ({ exit }: Ended): string => `${exit.how} ${exit.value} ${exit.cause}`

const inAndBelow = (group: string): readonly string[] =>
  [...appGroupsOf(group), group].filter((place) => existsSync(place))
const procsOf = (group: string): string => read(path.join(group, 'cgroup.procs'))

const childrenOf = (pid: number): readonly number[] =>
  read(`/proc/${pid}/task/${pid}/children`).trim().split(' ').map(Number)

/** The process that has made the app's: the monitor's one child. */
const sessionOf = ({ pid }: Running): number => childrenOf(pid)[0] ?? 0

/** Hard ends of what keeps a pod. */
const ENDS: Readonly<Record<string, (running: Running) => void>> = {
  monitor: ({ pid }) => process.kill(pid, 'SIGKILL'),
  session: (running) => process.kill(sessionOf(running), 'SIGKILL'),
  'monitor and session': (running) => {
    const both = [sessionOf(running), running.pid]
    // Neither sees the other's end.
    for (const signal of ['SIGSTOP', 'SIGKILL']) for (const pid of both) process.kill(pid, signal)
  },
}

export function hostCases(machine: Machine): void {
  suite('system/host', { concurrency: 1 }, () => {
    /** With no pods but of these tests. */
    let on: SpawnHost
    first(async () => {
      on = await machine.another('beside', {})
    })
    /** An app that starts two processes which it does not wait for, and ends with a line. */
    const leaves = async (spawned = on): Promise<Running> => {
      const args = sh('(sleep 1000 &) & setsid sleep 1000 & echo up; read a; exit 3')
      const running = await start(machine, { args, on: spawned })
      await running.says(/up/u)
      while (new Set(membersOf(running.pod)).size < 3) await sleep(LOOK_MS)
      return running
    }

    test('starts nothing for a tenant whom root’s file does not name for just this level', async () => {
      const other = await prepare(machine, { args: probe('hold'), tenant: 'beta' })
      assert.equal(await refusal(other, await papers(machine, other)), 'LEVEL_NOT_LISTED')
      const alone = await machine.another('of containers', { levels: { acme: ['container'] } })
      const named = await prepare(machine, { args: probe('hold'), on: alone })
      assert.equal(await refusal(named, await papers(machine, named)), 'LEVEL_NOT_LISTED')
      await alone.program.end()
    })

    test('starts nothing that would have or change what is the host’s', async () => {
      for (const [what, wish] of [
        ['a network', { network: at(2) }],
        ['parameters', { sysctls: [{ name: 'kernel.shmmni', value: '77' }] }],
        ['administration', { capabilities: ['CAP_SYS_ADMIN'] }],
        ['raw sockets', { capabilities: ['CAP_NET_RAW'] }],
        ['nodes', { capabilities: ['CAP_MKNOD'] }],
      ] as const) {
        const prepared = await prepare(machine, { args: probe(), ...wish })
        const code = await refusal(prepared, await papers(machine, prepared))
        assert.equal(code, 'SPEC_MALFORMED', what)
      }
      const open = await prepare(machine, { args: probe() }, (spec) => {
        Object.assign(Object(spec['apps'])[0], { seccomp: null })
      })
      assert.equal(await refusal(open, await papers(machine, open)), 'SPEC_MALFORMED')
    })

    test('shares all namespaces of the host but that of mounts, and its names, and sets nothing there', async () => {
      const settings = [
        ...['user', 'net'].map((kind) => `/proc/sys/user/max_${kind}_namespaces`),
        ...['ip_unprivileged_port_start', 'ping_group_range'].map(
          (name) => `/proc/sys/net/ipv4/${name}`,
        ),
      ]
      const before = settings.map(read)
      const spaces = [...SHARED, ...OWN].map((kind) => `readlink /proc/self/ns/${kind}`).join('; ')
      const { stdout } = await run(machine, {
        args: sh(`${spaces}; hostname; cat /etc/resolv.conf`),
      })
      const of = (kind: string): string => readlinkSync(`/proc/self/ns/${kind}`)
      const lines = stdout.split('\n')
      assert.deepEqual(lines.slice(0, SHARED.length), SHARED.map(of))
      for (const [place, kind] of OWN.entries()) {
        assert.notEqual(lines[SHARED.length + place], of(kind), kind)
      }
      const rest = lines.slice(SHARED.length + OWN.length)
      assert.equal(rest[0], hostname())
      assert.equal(rest.slice(1).join('\n'), read('/etc/resolv.conf'))
      assert.deepEqual(settings.map(read), before)
    })

    test('sees the host’s processes, and reaches files, memory or programs of none of root’s', async () => {
      const running = await leaves()
      const { pid } = on.program
      const targets = [1, pid, ...childrenOf(pid), sessionOf(running)]
      const script = `for p in ${targets.join(' ')}; do
          [ -d /proc/$p ] && echo "sees $p"
          for link in root cwd exe fd/0; do readlink /proc/$p/$link && echo "reaches $p"; done
          (: < /proc/$p/mem) && echo "reads $p"
        done 2>/dev/null; cat /proc/self/mountinfo`
      const { stdout } = await run(machine, { args: sh(script), on })
      const seen = targets.map((target) => `sees ${target}`)
      assert.deepEqual(stdout.match(/^sees \d+$/gmu), seen)
      assert.doesNotMatch(stdout, /^(?:reaches|reads)/mu)
      for (const word of ['/var', '/run', 'loop', 'ext4', 'erofs', machine.place('')]) {
        assert.ok(!stdout.includes(word), word)
      }
      await on.spawn.kill(running.pod)
      assert.equal(told(await running.end()), 'vmm 9 KILLED')
      await gone(on.directory, running.pod)
    })

    test('ends with all that its app has left', async () => {
      const running = await leaves()
      running.stream.stdin(Buffer.from('\n'))
      const ended = await running.end()
      assert.equal(told(ended), 'code 3 APP_EXIT', ended.notes)
      await gone(on.directory, running.pod)
    })

    for (const [what, kill] of Object.entries(ENDS)) {
      test(`ends by a kill of its ${what}`, async () => {
        const running = await leaves()
        const members = membersOf(running.pod)
        kill(running)
        await running.end()
        await gone(on.directory, running.pod)
        assert.deepEqual(
          members.filter((pid) => /^\d+ \(.*\) [^ZX] /u.test(read(`/proc/${pid}/stat`))),
          [],
        )
      })
    }

    test('ends with the last spawn of its host', async () => {
      const alone = await machine.another('not kept', {})
      const running = await leaves(alone)
      process.kill(alone.program.pid, 'SIGKILL')
      const all = (): string => groupsOf(running.pod).flatMap(inAndBelow).map(procsOf).join('')
      while (all() !== '') await sleep(LOOK_MS)
      // Nobody is left to do it.
      for (const group of groupsOf(running.pod)) {
        for (const place of [...inAndBelow(group), path.dirname(group)]) rmdirSync(place)
      }
    })

    test('what is executed in it has what its app has, and ends with it', async () => {
      const { begin, run: execute } = executions(machine)
      const args = sh('echo up; while :; do sleep 1000; done')
      const running = await start(machine, { args, user: '1234:1234' })
      await running.says(/up/u)
      const [event] = running.events
      assert.ok(event?.kind === 'started')
      const look = (of: string): Promise<{ stdout: string }> =>
        execute(running, [
          '/bin/sh',
          '-c',
          `grep -E 'Uid:|Gid:|Groups:|Cap...:|NoNewPrivs:|Seccomp' /proc/${of}/status
            cat /proc/${of}/cgroup /proc/${of}/limits; readlink /proc/${of}/ns/mnt`,
        ])
      const [own, apps] = [await look('self'), await look(String(event.guestPid))]
      assert.match(own.stdout, /^Uid:\t1234\t1234\t1234\t1234$/mu)
      assert.equal(own.stdout, apps.stdout)
      const stays = ['/bin/sh', '-c', 'setsid sleep 1000 & echo in; read a']
      const exec = await begin(running, asked(stays))
      const { said, end } = listen(exec)
      await until(exec, said, /in/u)
      running.stream.signal(9)
      assert.deepEqual((await end).end, { kind: 'exit', how: 'signal', value: 9 })
      assert.equal(told(await running.end()), 'signal 9 APP_SIGNAL')
      assert.deepEqual(membersOf(running.pod), [])
    })
  })
}

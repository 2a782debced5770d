/**
 * Processes beside the app of a container, which a process of the host's enters: what it takes along, as the host sees
 * it, and what root inside can get hold of on the way.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { suite, test } from 'node:test'
import type { Errand } from '../../native/errand-request.ts'
import type { ExecStream } from '../../native/exec-stream.ts'
import { parsePodPath } from '../../policy/index.ts'
import { asked, code, errand, executions, listen, type Said, until } from './executions.ts'
import type { Machine } from './harness.ts'
import { probe, type Running, sh, start } from './launch.ts'

const SESSIONS_MAX = 16
/** What differs between any two processes, or from one moment to the next. */
const OWN =
  /^(?:Name|State|T?gid|Ngid|P?Pid|NS\w+|Vm\w+|Rss\w+|Hugetlb\w+|FDSize|Threads|SigQ|\w*ctxt_switches|Sig\w+|Shd\w+):/iu

/** All that the host's kernel says confines a process, and its own parent's name. */
function confinement(pid: string): object {
  const read = (file: string): string => readFileSync(`/proc/${pid}/${file}`, 'latin1')
  const files = ['cgroup', 'limits', 'oom_score_adj', 'mountinfo', 'uid_map', 'gid_map']
  const kinds = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'pid_for_children', 'time', 'user', 'uts']
  let label = ''
  try {
    label = read('attr/current')
  } catch {
    // The kernel has no security module that labels.
  }
  return {
    label,
    status: read('status')
      .split('\n')
      .filter((line) => !OWN.test(line)),
    files: files.map(read),
    namespaces: kinds.map((kind) => readlinkSync(`/proc/${pid}/ns/${kind}`)),
    root: readlinkSync(`/proc/${pid}/root`),
  }
}

/** The process of the host with these words on its command line. */
/** The only process of the host with this command line. */
export function processOf(...words: readonly string[]): string {
  const line = `${words.join('\0')}\0`
  const is = (pid: string): boolean => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'latin1') === line
    } catch {
      return false
    }
  }
  const found = readdirSync('/proc').filter((name) => /^\d+$/u.test(name) && is(name))
  assert.equal(found.length, 1, words.join(' '))
  return found[0] ?? ''
}

export function containerExecCases(machine: Machine): void {
  const { begin, run } = executions(machine)
  const kill = async (running: Running): Promise<void> => {
    await machine.spawn.kill(running.pod)
    await running.end()
  }

  suite('system/exec in a container', { concurrency: 1 }, () => {
    test('has nothing that its app has not, as the host sees it (CVE-2019-10144, -10145, -10147)', async () => {
      const app = ['/bin/sleep', '98765'] as const
      const beside = ['/bin/sleep', '56789'] as const
      const running = await start(machine, { args: app, capabilities: ['CAP_CHOWN', 'CAP_KILL'] })
      await run(running, ['/bin/echo'])
      const exec = await begin(running, asked(beside))
      while (
        !(await run(running, ['/bin/sh', '-c', 'ps -o args'])).stdout.includes(beside.join(' '))
      );
      const [own, apps] = [confinement(processOf(...beside)), confinement(processOf(...app))]
      assert.deepEqual(own, apps)
      exec.close()
      await kill(running)
    })

    test('root inside, with every capability, gets hold of nothing of who enters (CVE-2016-9962, CVE-2019-5736, CVE-2024-21626)', async () => {
      const capabilities = [
        'CAP_DAC_OVERRIDE',
        'CAP_DAC_READ_SEARCH',
        'CAP_SYS_ADMIN',
        'CAP_SYS_PTRACE',
      ] as const
      const running = await start(machine, { args: probe('prowl'), capabilities })
      // An errand stays what it was made of, for as long as it takes.
      const path = parsePodPath('/')
      const copy: Errand = { kind: 'copy-in', path, place: 'inside', owners: true }
      const waiting = await begin(running, errand(copy, '0'))
      const { end } = listen(waiting)
      let ended = 0
      // Until it has met one on its way in, however long that takes, and then some.
      for (; ended < 40; ended += 1) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        assert.deepEqual((await run(running, ['/bin/echo'])).end, code(0))
      }
      waiting.stdinEof()
      assert.deepEqual((await end).end, code(0))
      running.stream.stdinEof()
      const { stdout } = await running.end()
      assert.equal(stdout, 'prowled met\n')
    })

    test('a working directory that is a descriptor leads nowhere (CVE-2024-21626)', async () => {
      const running = await start(machine, { args: probe('hold') })
      for (let number = 0; number < 24; number += 1) {
        for (const cwd of [`/proc/self/fd/${number}`, `/proc/self/fd/${number}/../../..`]) {
          // oxlint-disable-next-line no-await-in-loop
          const { end, stdout } = await run(running, ['/bin/sh', '-c', 'pwd; ls /'], { cwd })
          assert.ok(end.kind === 'error', `${cwd} ${stdout}`)
        }
      }
      await kill(running)
    })

    test('an app that hides its own files, or puts others in their place, changes nothing of that', async () => {
      // The last of them is what busybox finds its own programs by.
      const script =
        'for at in /etc /dev/pts /proc; do mount -t tmpfs none $at; done; echo hidden; exec /bin/sleep 1000'
      const running = await start(machine, { args: sh(script), capabilities: ['CAP_SYS_ADMIN'] })
      await running.says(/hidden/u)
      const said = await run(running, ['/bin/sh', '-c', 'echo /proc/* /etc/*'])
      assert.deepEqual([said.stdout, said.end], ['/proc/* /etc/*\n', code(0)], said.stderr)
      const exec = await begin(running, asked(['/bin/sh'], { terminal: { rows: 1, columns: 1 } }))
      const { end } = await listen(exec).end
      assert.ok(end.kind === 'error', JSON.stringify(end))
      await kill(running)
    })

    test('a pod has no more sessions than sixteen, and their ends make room', async () => {
      const running = await start(machine, { args: probe('hold') })
      const open: { exec: ExecStream; end: Promise<Said> }[] = []
      for (let number = 0; number < SESSIONS_MAX; number += 1) {
        // oxlint-disable-next-line no-await-in-loop
        const exec = await begin(running, asked(['/bin/sh', '-c', 'echo in; read a; exit 4']))
        const { said, end } = listen(exec)
        // oxlint-disable-next-line no-await-in-loop
        await until(exec, said, /in/u)
        open.push({ exec, end })
      }
      await assert.rejects(run(running, ['/bin/echo']), /too many sessions/u)
      for (const { exec } of open) exec.stdin(Buffer.from('on\n'))
      const ends = await Promise.all(open.map(async (one) => (await one.end).end))
      assert.deepEqual(
        ends,
        ends.map(() => code(4)),
      )
      assert.deepEqual((await run(running, ['/bin/echo'])).end, code(0))
      await kill(running)
    })

    test('the monitor that hears the agent has no privilege, and no other process its user id', async () => {
      const running = await start(machine, { args: probe('say', 'up', 'hold') })
      await running.says(/up/u)
      const status = readFileSync(`/proc/${running.pid}/status`, 'utf8')
      const field = (name: string): string =>
        new RegExp(`^${name}:\\t(.*)$`, 'mu').exec(status)?.[1] ?? ''
      const zeros = '0'.repeat(16)
      const sets = ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map(field)
      assert.deepEqual(
        sets,
        sets.map(() => zeros),
      )
      assert.deepEqual(['Seccomp', 'NoNewPrivs'].map(field), ['2', '1'])
      const [uid = ''] = field('Uid').split('\t')
      assert.equal(Number(uid) % 65_536, 65_535)
      const others = readdirSync('/proc').filter((name) => {
        try {
          return readFileSync(`/proc/${name}/status`, 'utf8').includes(`Uid:\t${uid}\t`)
        } catch {
          return false
        }
      })
      assert.deepEqual(others, [String(running.pid)])
      await kill(running)
    })
  })
}

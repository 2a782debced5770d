/** Pods of several apps: what they share, what they do not, in which order they start, and what the end of one means. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import type { Canonical } from '../../policy/canonical.ts'
import { processOf } from './container-exec.cases.ts'
import { executions } from './executions.ts'
import type { Machine } from './harness.ts'
import { type Ended, type Loose, probe, type Running, run, sh, start } from './launch.ts'

interface AppWish {
  readonly name: string
  readonly args: readonly string[]
  readonly after?: Canonical
  readonly mounts?: Canonical
}

/** Has the spec run these in place of the one that it was made for. */
export const several =
  (...wishes: readonly AppWish[]) =>
  (spec: Loose): void => {
    const [app] = Object(spec['apps'])
    const like = ({ name, args, after = null, mounts = [] }: AppWish): Canonical => {
      const { process, ...rest } = structuredClone(Object(app))
      return { ...rest, name, after, mounts, process: { ...process, args: [...args] } }
    }
    spec['apps'] = wishes.map(like)
  }

const said = ({ log }: Ended, place: number): string =>
  log
    .filter(({ app, stream }) => app === place && stream === 'stdout')
    .map(({ payload }) => payload.toString())
    .join('')

/** What the group of a process of the host may have of memory, in bytes, and the group that this one is in. */
function memoryBounds(pid: string): readonly number[] {
  const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n')
  const folders = lines.flatMap((line) => {
    const [, names = '', path = ''] = /^\d+:([^:]*):(.*)$/u.exec(line) ?? []
    return names === 'memory' || names === '' ? [join('/sys/fs/cgroup', names, path)] : []
  })
  const bounds = folders.flatMap((folder) =>
    [folder, join(folder, '..')].flatMap((group) =>
      ['memory.max', 'memory.limit_in_bytes'].map((file) => join(group, file)),
    ),
  )
  return bounds.filter((file) => existsSync(file)).map((file) => Number(readFileSync(file, 'utf8')))
}

const script = (name: string, text: string, after?: Canonical): AppWish =>
  after === undefined ? { name, args: sh(text) } : { name, args: sh(text), after }

export function appsCases(machine: Machine): void {
  const { run: exec } = executions(machine)
  const wish = { args: sh('true') }
  const asked = async (pod: Running, text: string, app: string): Promise<string> =>
    (await exec(pod, sh(text), { app })).stdout.trim()

  suite('system/apps', { concurrency: 1 }, () => {
    test('two apps talk over loopback, and each has its own lines in the log', async () => {
      const server = `mkdir /www; echo hello from one > /www/index.html; echo serving
        exec httpd -f -p 127.0.0.1:8080 -h /www`
      // The other's files are not there.
      const client = `until wget -q -O - http://127.0.0.1:8080/index.html; do sleep 1; done
        [ -e /www ] || exit 3`
      const ended = await run(
        machine,
        { ...wish, stopSignal: 'KILL' },
        several(script('one', server), script('two', client)),
      )
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'code 3', ended.notes)
      assert.equal(said(ended, 0), 'serving\n', ended.stderr)
      assert.equal(said(ended, 1), 'hello from one\n', ended.stderr)
    })

    if (machine.level !== 'container') return

    test('share namespaces of network, IPC and names, and see nothing else of each other', async () => {
      const hold = (seconds: number): string => `echo up; exec sleep ${seconds}`
      const bend = several(script('one', hold(12_345)), script('two', hold(12_346)))
      const pod = await start(machine, wish, bend)
      await pod.says(/up\nup/u)
      const links = 'for n in cgroup ipc mnt net pid user uts; do readlink /proc/1/ns/$n; done'
      const [one, two] = await Promise.all(['one', 'two'].map((app) => asked(pod, links, app)))
      const [ones, twos] = [one?.split('\n') ?? [], two?.split('\n') ?? []]
      const shared = ones.filter((link) => twos.includes(link)).map((link) => link.split(':')[0])
      assert.deepEqual(shared, ['ipc', 'net', 'uts'])
      const processes = await asked(pod, 'ps -o args= | grep -c "sleep 1234[56]"', 'two')
      assert.equal(processes, '1')
      // Each has a root of its own above the same image.
      assert.equal(await asked(pod, 'echo x > /made; ls /made', 'one'), '/made')
      assert.match((await exec(pod, sh('ls /made'), { app: 'two' })).stderr, /No such file/u)
      const nobody = await exec(pod, sh('true'), { app: 'three' })
      assert.equal(nobody.end.kind, 'error')
      const cgroups = await asked(pod, 'cat /proc/self/cgroup | head -c 2000', 'two')
      assert.doesNotMatch(cgroups, /casemate/u)
      const bytes = pod.prepared.plan.memoryMib * 2 ** 20
      assert.deepEqual(memoryBounds(processOf('sleep', '12346')), [bytes, bytes])
      await machine.spawn.kill(pod.pod)
      await pod.exit()
    })

    test('share a directory by its name, and one without is an app’s own', async () => {
      const mounts = [{ kind: 'empty', mode: 0o1777, name: 'both', path: '/shared' }]
      const own = [{ kind: 'empty', mode: 0o1777, name: null, path: '/shared' }]
      const ended = await run(
        machine,
        wish,
        several(
          { name: 'one', args: sh('echo from one > /shared/file'), mounts },
          {
            name: 'two',
            args: sh('cat /shared/file; ls /shared | wc -l'),
            mounts,
            after: { app: 'one', condition: 'exited' },
          },
          { name: 'three', args: sh('ls /shared | wc -l'), mounts: own },
        ),
      )
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'code 0', ended.notes)
      assert.equal(said(ended, 1), 'from one\n1\n')
      assert.equal(said(ended, 2), '0\n')
    })

    test('the first that fails ends the pod, and the others are told to stop', async () => {
      const mounts = [{ kind: 'empty', mode: 0o1777, name: 'both', path: '/shared' }]
      const polite = `trap 'echo told; exit 0' TERM; echo up | tee /shared/up; while :; do sleep 0.1; done`
      const fail = 'until [ -e /shared/up ]; do sleep 0.1; done; exit 9'
      const ended = await run(
        machine,
        wish,
        several({ name: 'one', args: sh(polite), mounts }, { name: 'two', args: sh(fail), mounts }),
      )
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'code 9', ended.notes)
      assert.equal(said(ended, 0), 'up\ntold\n')
      const missing = { name: 'two', args: ['/bin/none'] }
      const none = await run(
        machine,
        wish,
        several({ name: 'one', args: sh(polite), mounts }, missing),
      )
      assert.equal(`${none.exit.how} ${none.exit.value}`, 'code 127', none.notes)
      assert.match(none.notes, /could not be started: APP_NOT_FOUND/u)
    })

    test('memory is of all of them, and who ran out of it is said of one', async () => {
      const eat = { name: 'two', args: probe('eat') }
      const bend = several(script('one', `trap 'exit 0' TERM; while :; do sleep 0.1; done`), eat)
      const ended = await run(machine, wish, bend)
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'oom 9', ended.notes)
      assert.match(ended.notes, /ended with out of memory, signal 9/u)
    })

    test('a stop is for all of them, and a waiting one is not started any more', async () => {
      const polite = (name: string, after?: Canonical): AppWish =>
        script(name, `trap 'exit 0' TERM; echo ${name}; while :; do sleep 0.1; done`, after)
      const bend = several(
        polite('one'),
        polite('two'),
        polite('three', { app: 'one', condition: 'exited' }),
      )
      const pod = await start(machine, wish, bend)
      await pod.says(/one[^]*two|two[^]*one/u)
      await machine.spawn.stop(pod.pod, 60_000)
      const ended = await pod.end()
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'code 0', ended.notes)
      assert.equal(said(ended, 2), '')
    })
  })
}

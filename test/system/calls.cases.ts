/**
 * System calls of the VMM: the filters on its threads are those its binary prints, and no rule in them is
 * idle. That they kill what they should is tried in native/vmm/tests/seccomp, call by call.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { after, before as first, suite, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { PodStream } from '../../native/pod-stream.ts'
import { networkOf } from '../native/networks.ts'
import { type ByHand, startByHand, withDescriptors } from './by-hand.ts'
import type { Machine, SpawnHost } from './harness.ts'
import { compile } from './images.ts'
import { papers, prepare, probe, Running, start } from './launch.ts'
import { filtersOn, startProgram, threadsOf } from './processes.ts'
import { examine, type Filters, filtersOf, follow, type Kind, STRACE } from './trace.ts'

const LOOK_MS = 20
const THREADS: ReadonlyMap<string, Kind> = new Map([
  ['casemate-vmm', 'control'],
  ['io', 'io'],
  ['vcpu0', 'vcpu'],
])

/** A VMM that builds a template, once its vCPU runs. */
async function builderOf({ program }: SpawnHost, building: Promise<unknown>): Promise<number> {
  const over = new AbortController()
  const end = (): void => over.abort()
  building.then(end, end)
  while (!over.signal.aborted) {
    const children = readFileSync(`/proc/${program.pid}/task/${program.pid}/children`, 'latin1')
    // Beside it spawn has a router, and what starts containers.
    const pids = children.split(' ').filter((pid) => pid !== '')
    const pid = pids.map(Number).find((one) => [...threadsOf(one).values()].includes('vcpu0'))
    if (pid !== undefined) return pid
    await pause(LOOK_MS)
  }
  throw new Error('the template was there, or failed, before the VMM that builds it was seen')
}

/** The stream of an agent that takes a pod over. */
const adopt = async (pod: string, { spawn }: SpawnHost): Promise<PodStream> =>
  new PodStream((await spawn.adopt(pod)).stream)

/** Lives of pods that have every device do something, and end in one way each. */
async function lives(machine: Machine, on: SpawnHost): Promise<void> {
  const { template } = await on.spawn.template(1, 128)
  const doing = 'say up line slurp /data/blob churn /made cat exit 4'
  const network = networkOf()
  const one = await start(machine, { args: probe(...doing.split(' ')), on, template, network })
  await one.says(/up/u)
  one.stream.close()
  const again = new Running(one.prepared, one.pid, await adopt(one.pod, on))
  again.stream.stdin(Buffer.from('hello\nmore'))
  again.stream.stdinEof()
  const { exit, stdout, notes } = await again.end()
  assert.equal(`${exit.how} ${exit.value}`, 'code 4', notes)
  assert.match(stdout, /^line hello\n[\s\S]*^churn \/made ok$/mu)

  const two = await start(machine, { args: probe('trap', 'say', 'up', 'hold'), on, template })
  await two.says(/up/u)
  await on.spawn.stop(two.pod, 600_000)
  assert.equal((await two.end()).exit.value, 9)
}

/** Each program in the kernel's hands, by thread; null where the kernel does not show them. */
function filtersIn(machine: Machine, pid: number): ReadonlyMap<string, readonly string[]> | null {
  const tool = machine.place('filters')
  compile('tools/filters', tool)
  const threads = threadsOf(pid)
  const { status, stdout, stderr } = spawnSync(tool, [...threads.keys()], { encoding: 'utf8' })
  if (status === 2) return null
  assert.equal(status, 0, stderr)
  const found = new Map<string, string[]>([...threads.values()].map((name) => [name, []]))
  for (const line of stdout.trim().split('\n')) {
    const [tid = '', hex = ''] = line.split(' ')
    const digest = createHash('sha256').update(Buffer.from(hex, 'hex')).digest('hex')
    found.get(threads.get(tid) ?? '')?.push(`sha256:${digest}`)
  }
  return found
}

export function callsCases(machine: Machine): void {
  const { vmm } = machine.artifacts
  /** A VMM without spawn, with threads, filters and a guest. */
  async function byHand<T>(use: (running: ByHand) => Promise<T>): Promise<T> {
    const prepared = await prepare(machine, { args: probe('hold') })
    const given = await papers(machine, prepared)
    return await withDescriptors(machine, prepared, given, async (good) => {
      const running = startByHand(machine, good)
      try {
        return await use(running)
      } finally {
        running.child.kill('SIGKILL')
      }
    })
  }

  suite('system/calls', { concurrency: 1 }, () => {
    test('every rule is met in the lives of a template and two pods, one with a network, but for those that say why not', async (t) => {
      if (!existsSync(STRACE)) {
        t.skip(`${STRACE} is missing`)
        return
      }
      // With no template to take over, so that one is booted.
      const on = await machine.another('traced', { template_dir: machine.place('booted') })
      const output = machine.place('calls')
      const tracer = await follow(on.program.pid, output)
      const building = on.spawn.template(1, 128)
      const builder = await builderOf(on, building)
      // A template's VMM has the filter of the start alone.
      const filtered = { 'casemate-vmm': ['2', '3', '1'], vcpu0: ['2', '3', '1'] }
      assert.deepEqual(filtersOn(builder), filtered)
      await building
      await lives(machine, on)
      await on.program.end()
      await tracer.gone()
      const { unmet, rare, unknown } = examine(output, filtersOf(vmm))
      t.diagnostic(`rare rules that were met: ${rare.join('; ')}`)
      assert.deepEqual(unknown, [], 'each call that was made is one that a rule allows')
      assert.deepEqual(unmet, [], 'remove them, or say what has to happen first')
    })

    suite('of one that runs', () => {
      let running: Running
      let filters: Filters
      first(async () => {
        running = await start(machine, { args: probe('say', 'up', 'line', 'line', 'hold') })
        await running.says(/up/u)
        // Not the file that was installed, which may be another by now: the one that runs.
        filters = filtersOf(`/proc/${running.pid}/exe`)
      })
      after(async () => {
        await machine.spawn.kill(running.pod)
        await running.exit()
      })

      test('the kernel holds on each thread the filters that its binary prints, in their order', (t) => {
        const found = filtersIn(machine, running.pid)
        if (found === null) {
          t.skip('this kernel does not show filters (CONFIG_CHECKPOINT_RESTORE)')
          return
        }
        // Spawn's two come first: it was under them when it started the VMM.
        const spawns = [...(filtersIn(machine, machine.program.pid)?.values() ?? [])].flat()
        assert.equal(spawns.length, 2)
        const expected = [...THREADS].map(
          ([thread, kind]) =>
            [thread, [...spawns, filters.start.digest, filters[kind].digest]] as const,
        )
        assert.deepEqual(found, new Map(expected))
      })

      test('it runs on after it was looked at, every thread stopped once', async () => {
        running.stream.stdin(Buffer.from('still here\n'))
        assert.match(await running.says(/line .*\n/u), /line still here\n/u)
      })

      test('a stream that is replaced before it is used is closed, and the VM goes on with the next', async () => {
        const tool = machine.place('hold')
        compile('tools/hold', tool)
        const io = [...threadsOf(running.pid)].find(([, name]) => name === 'io')?.[0] ?? ''
        const holder = await startProgram([tool, io], 'held')
        const replaced = await adopt(running.pod, machine)
        const last = await adopt(running.pod, machine)
        // By the control thread, which nobody holds.
        if (!replaced.closed) await once(replaced, 'close')
        await holder.end()
        last.stdin(Buffer.from('and with the next\n'))
        assert.match(await running.says(/line and .*\n/u), /line and with the next\n/u)
      })

      test('digests that it reports, that its binary prints and that spawn describes are one', async () => {
        const printed: unknown = JSON.parse(
          execFileSync(`/proc/${running.pid}/exe`, ['--digests'], { encoding: 'utf8', env: {} }),
        )
        const { control, io, vcpu } = filters
        const own = { control: control.digest, io: io.digest, vcpu: vcpu.digest }
        assert.deepEqual(printed, own)
        assert.deepEqual(machine.host.vmm.filters, own)
        const reported = await byHand((vmmByHand) => vmmByHand.started())
        assert.deepEqual(
          reported.map((hex) => `sha256:${hex}`),
          Object.values(own),
        )
      })
    })

    test('a VMM whose spawn is gone ends, and not by its filter', async () => {
      const end = await byHand(async (running) => {
        await running.started()
        running.hangUp()
        await running.said()
        return running.child
      })
      assert.deepEqual([end.exitCode, end.signalCode], [0, null])
    })

    test('a fault of its own ends it as a fault, and not by its filter', async () => {
      const end = await byHand(async (running) => {
        await running.started()
        running.child.kill('SIGSEGV')
        await running.said()
        return running.child
      })
      assert.equal(end.signalCode, 'SIGSEGV')
    })
  })
}

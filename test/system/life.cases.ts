/** Lives of pods: standard input, stop, kill, agents that go and come back, and what is kept of the end. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { PodStream } from '../../native/pod-stream.ts'
import { SpawnError } from '../../native/spawn-client.ts'
import type { Machine } from './harness.ts'
import { type Ended, probe, Running, start } from './launch.ts'

/** Counters that go up in every life. */
const ORDINARY = new Set(['requests', 'interrupts', 'bytes_to_guest', 'bytes_from_guest'])

/** Clock ticks that each thread of a process has used. */
const processorTime = (pid: number): string =>
  readdirSync(`/proc/${pid}/task`)
    .map((task) => readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8').split(') ')[1] ?? '')
    .map((stat) => stat.split(' ').slice(11, 13).join('+'))
    .join(' ')

/** Whether the kernel has stopped its whole cgroup. */
function stopped(pid: number): boolean {
  const groups = readFileSync(`/proc/${pid}/cgroup`, 'utf8')
  const v1 = /^\d+:freezer:(.*)$/mu.exec(groups)?.[1]
  if (v1 !== undefined) {
    return readFileSync(`/sys/fs/cgroup/freezer${v1}/freezer.state`, 'utf8') === 'FROZEN\n'
  }
  const v2 = /^0::(.*)$/mu.exec(groups)?.[1] ?? ''
  return readFileSync(`/sys/fs/cgroup${v2}/cgroup.events`, 'utf8').includes('frozen 1')
}

const told = ({ exit }: Ended): string => `${exit.how} ${exit.value} ${exit.cause}`

export function lifeCases(machine: Machine): void {
  const { spawn, level } = machine
  const isVm = level === 'vm'
  const up = async (...words: readonly string[]): Promise<Running> => {
    const running = await start(machine, { args: probe(...words, 'say', 'up', 'hold') })
    await running.says(/up/u)
    return running
  }
  const status = async (pod: string) => (await spawn.list()).find((one) => one.pod === pod)

  suite('system/life', { concurrency: 1 }, () => {
    test('passes standard input on, more than a window of it, byte for byte, and its end', async () => {
      const input = createHash('shake256', { outputLength: 80_000 }).digest()
      const running = await start(machine, { args: probe('cat', 'exit', '5') })
      running.stream.stdin(input)
      running.stream.stdinEof()
      const ended = await running.end()
      assert.equal(told(ended), 'code 5 APP_EXIT', ended.notes)
      const output = ended.log.filter(({ stream }) => stream === 'stdout')
      assert.ok(Buffer.concat(output.map(({ payload }) => payload)).equals(input))
    })

    test('counts what the guest asks of its machine, and no fault in what ours does', {
      skip: !isVm,
    }, async () => {
      const running = await up()
      const { machine: counted, devices } = await spawn.metrics(running.pod)
      const again = await spawn.metrics(running.pod)
      await spawn.kill(running.pod)
      const ended = await running.end()
      const of = (device: string, counter: string): number => devices[device]?.[counter] ?? -1
      assert.ok(of('image', 'requests') > 0 && of('image', 'bytes_to_guest') > 4096)
      assert.ok(of('console', 'bytes_from_guest') > 'up'.length)
      assert.ok(of('rng', 'requests') >= 0)
      assert.ok((again.machine['exits_mmio'] ?? -1) >= (counted['exits_mmio'] ?? 0))
      const faults = Object.entries(devices).flatMap(([device, counters]) =>
        Object.entries(counters)
          .filter(([name, count]) => count > 0 && !ORDINARY.has(name))
          .map(([name, count]) => `${device} ${name} ${count}`),
      )
      assert.deepEqual(faults, [])
      // Linux finds no register missing that it needs: what is refused would be in its log and here.
      assert.equal(counted['refused_msrs'], 0, ended.notes)
      await assert.rejects(spawn.metrics(running.pod), { code: 'POD_NOT_RUNNING' })
    })

    test('stops an app that listens with TERM', async () => {
      const running = await up('trap')
      await spawn.stop(running.pod, 600_000)
      const ended = await running.end()
      assert.equal(told(ended), 'code 9 APP_EXIT')
      assert.equal(ended.stdout, 'up\nheard TERM\n')
    })

    test('passes any signal on, and stops an app with the one that it has', async () => {
      const script =
        "trap 'echo USR1' USR1; trap 'echo INT; exit 5' INT; echo up; while :; do sleep 1 & wait; done"
      const running = await start(machine, { args: ['/bin/sh', '-c', script], stopSignal: 'INT' })
      await running.says(/up/u)
      running.stream.signal(10)
      await running.says(/USR1/u)
      await spawn.stop(running.pod, 600_000)
      const ended = await running.end()
      assert.deepEqual([told(ended), ended.stdout], ['code 5 APP_EXIT', 'up\nUSR1\nINT\n'])
    })

    test('stops an app that does not listen with KILL when its time is over', async () => {
      const running = await up('deaf')
      await spawn.stop(running.pod, 500)
      // The guest's init and spawn both watch the time; whoever is first ends it.
      const ended = told(await running.end())
      assert.ok(['signal 9 APP_SIGNAL', 'vmm 9 STOP_TIMEOUT'].includes(ended), ended)
    })

    test('stands still while it is paused, and loses nothing', async () => {
      const script = 'echo up; (while :; do :; done) & read word; echo "took $word"; exit 4'
      const running = await start(machine, { args: ['/bin/sh', '-c', script] })
      await running.says(/up/u)
      await spawn.pause(running.pod)
      assert.equal((await status(running.pod))?.paused, true)
      running.stream.stdin(Buffer.from('this\n'))
      while (!stopped(running.pid)) await sleep(5)
      const before = processorTime(running.pid)
      // Not for ordering: a time in which a guest that goes round and round would use a processor.
      await sleep(500)
      assert.equal(processorTime(running.pid), before)
      await assert.rejects(spawn.metrics(running.pod), { code: 'POD_PAUSED' })
      const { cpu_us, memory_bytes, tasks } = await spawn.usage(running.pod)
      assert.ok((cpu_us ?? 0) > 0 && (memory_bytes ?? 0) > (isVm ? 1 << 20 : 1 << 16))
      // Control, I/O, one for the processor; some kernels count a thread of KVM's as well.
      assert.ok(isVm ? [3, 4].includes(tasks ?? 0) : (tasks ?? 0) > 2, String(tasks))
      await spawn.resume(running.pod)
      const ended = await running.end()
      assert.equal(told(ended), 'code 4 APP_EXIT', ended.notes)
      assert.equal(ended.stdout, 'up\ntook this\n')
    })

    test('kills on request, says so, and keeps the end until it is told to forget it', async () => {
      const running = await up()
      const { pod, pid } = running
      const alive = await status(pod)
      assert.deepEqual(alive, {
        pod,
        pid,
        tenant: 'acme',
        spec: running.prepared.specDigest,
        state: 'running',
        paused: false,
        scratch_bytes: machine.host.scratch.size,
        exit: null,
      })
      await assert.rejects(spawn.forget(pod), { code: 'POD_RUNNING' })
      await spawn.kill(pod)
      assert.equal(told(await running.end()), 'vmm 9 KILLED')
      assert.equal((await status(pod))?.state, 'exited')
      await assert.rejects(spawn.kill(pod), { code: 'POD_NOT_RUNNING' })
      await spawn.forget(pod)
      assert.equal(await status(pod), undefined)
      await assert.rejects(spawn.forget(pod), { code: 'POD_UNKNOWN' })
    })

    test('runs on without an agent, and gives a new one a fresh stream', async () => {
      const first = await start(machine, { args: probe('say', 'up', 'line', 'cat', 'exit', '4') })
      await first.says(/up/u)
      first.stream.close()
      const { pid, stream } = await spawn.adopt(first.pod)
      assert.equal(pid, first.pid)
      const second = new Running(first.prepared, pid, new PodStream(stream))
      second.stream.stdin(Buffer.from('hello again\nand more'))
      second.stream.stdinEof()
      const ended = await second.end()
      assert.equal(told(ended), 'code 4 APP_EXIT')
      assert.match(ended.stdout, /^up\nline hello again\n/u)
      assert.deepEqual(ended.events, [{ kind: 'exit', how: 'code', value: 4 }])
      await assert.rejects(spawn.adopt(first.pod), SpawnError)
    })
  })
}

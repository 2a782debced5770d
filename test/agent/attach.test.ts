/** The command line in front of a pod: attached to one that runs, and the exit codes that scripts know from docker. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { suite, test } from 'node:test'
import { AGENT_SOCKET } from '../../agent/compose.ts'
import type { PodExit } from '../../native/spawn-answers.ts'
import { casemate } from './command-line.ts'
import { member } from './harness.ts'
import { REPOSITORY } from './images/support/image.ts'
import { exitCode, type PodHost, podHost, run } from './pod-host.ts'

const DRIVER = resolve(import.meta.dirname, 'cli/exec-terminal.py')
const MAIN = resolve(import.meta.dirname, '../../agent/cli/main.ts')
const isPython = spawnSync('python3', ['-V']).status === 0

/** Numbers of the SIGNAL frames that the pod's VMM was sent. */
function signalsOf(host: PodHost, launch: string): number[] {
  const signals: number[] = []
  host.streamOf(launch).on('data', (bytes: Buffer) => {
    for (let at = 0; at + 12 <= bytes.length; at += 12) signals.push(bytes.readUInt32LE(at + 8))
  })
  return signals
}

suite('agent/attach', () => {
  test('shows what is written from now on, passes signals on, and ends as the pod does', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { name: 'web' })
    const signals = signalsOf(host, pod)
    await host.write(pod, 'before\n')
    const line = casemate(t, host, 'attach', 'web')
    // It says nothing when it is ready, so it is told until it shows something.
    await host.until('the first line', async () => {
      if (line.stdout !== '') return true
      await host.write(pod, 'again\n')
      return null
    })
    assert.doesNotMatch(line.stdout, /before/u)
    for (const signal of ['SIGHUP', 'SIGUSR1', 'SIGTERM'] as const) {
      const count = signals.length + 1
      line.kill(signal)
      await host.until(signal, () => (signals.length === count ? true : null))
    }
    assert.deepEqual(signals, [1, 10, 15])
    await host.write(pod, 'last\n')
    host.end(pod, { ...exitCode(15), how: 'signal', cause: 'APP_SIGNAL' })
    assert.equal(await line.ended, 143)
    assert.match(line.stdout, /again\nlast\n$/u)
    assert.equal(await casemate(t, host, 'attach', 'web').ended, 125)
    assert.equal(await casemate(t, host, 'attach', 'nobody').ended, 125)
  })

  test('ctrl-p ctrl-q leaves the pod alone, ctrl-c is a signal for it', async (t) => {
    if (!isPython) {
      t.skip('no python3, which makes the terminal')
      return
    }
    const host = await podHost(t)
    const pod = await run(host)
    const signals = signalsOf(host, pod)
    const socket = join(host.agent.directory, 'run', AGENT_SOCKET)
    const words = [process.execPath, MAIN, '--socket', socket, '-t', 'acme', 'attach', pod]
    const writing = setInterval(() => void host.write(pod, 'up\n'), 100)
    // Each in its turn: what is typed together is read together.
    const typed = ['x\u0003', '\u0010y', '\u0010\u0011']
    const steps = typed.flatMap((type) => [{ until: 'up' }, { type }])
    const child = spawn('python3', [DRIVER, JSON.stringify(steps), ...words])
    let shown = ''
    child.stdout.on('data', (bytes: Buffer) => {
      shown += bytes.toString('utf8')
    })
    await new Promise((done) => child.once('close', done))
    clearInterval(writing)
    assert.match(shown, /detached; .* runs on[\s\S]*\ncooked 0\n$/u)
    assert.deepEqual(signals, [2])
    assert.equal(member(await host.inspect(pod), 'state'), 'running')
  })
})

/** How a pod in the foreground ends, and with what the command line does. */
const ends: readonly (readonly [PodExit, number])[] = [
  [exitCode(0), 0],
  [exitCode(7), 7],
  [{ ...exitCode(15), how: 'signal', cause: 'APP_SIGNAL' }, 143],
  [{ ...exitCode(9), how: 'oom', cause: 'APP_OOM' }, 137],
  [{ ...exitCode(18), how: 'failure', cause: 'APP_START', text: 'APP_NOT_FOUND: /no' }, 127],
  [{ ...exitCode(18), how: 'failure', cause: 'APP_START', text: 'APP_NOT_EXECUTABLE: /t' }, 126],
  [{ ...exitCode(9), how: 'failure', cause: 'VERITY', text: 'block 1' }, 125],
]

suite('agent/exit codes of run', () => {
  test('are the pod’s, 125 where Casemate refused or failed, 126, 127 and 128+n as docker’s', async (t) => {
    const host = await podHost(t)
    const image = `${host.registry.host}/${REPOSITORY}:latest`
    for (const [index, [exit, code]] of ends.entries()) {
      const line = casemate(t, host, 'run', image)
      const { pod } = await host.launches(index + 1)
      await host.until('running', async () =>
        member(await host.inspect(pod), 'state') === 'running' ? true : null,
      )
      host.end(pod, exit)
      assert.equal(await line.ended, code, JSON.stringify(exit))
    }
    const refused = casemate(t, host, 'run', '--isolation', 'container', image)
    assert.equal(await refused.ended, 125)
    assert.equal(await casemate(t, host, 'run', '--memory', '1', image).ended, 125)
  })
})

/** Somebody else's client executes a program in a pod: the Python client of Kubernetes, installed once into the cache. */
import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { existsSync, rmSync } from 'node:fs'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { GuestPeer, withGuest } from '../agent/guest-peer.ts'
import { startAgent } from '../agent/harness.ts'
import { leaveRunning, POD } from '../agent/left-pod.ts'

const CLIENT = 'kubernetes==37.0.2'
const cache = process.env['CASEMATE_CACHE'] ?? '/var/cache/casemate'
const place = path.join(cache, `python-${CLIENT.replace('==', '-')}`)
const python = path.join(place, 'bin/python')
const SCRIPT = path.join(import.meta.dirname, 'exec-kubernetes.py')

/** Whether there is a client; the reason to skip where none can be had. */
function hasClient(t: TestContext): boolean {
  if (existsSync(path.join(place, 'ready'))) return true
  rmSync(place, { recursive: true, force: true })
  const steps = [
    ['python3', '-m', 'venv', place],
    [python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', CLIENT],
    ['touch', path.join(place, 'ready')],
  ] as const
  for (const [program, ...args] of steps) {
    const { status, stderr } = spawnSync(program, args, { encoding: 'utf8', timeout: 300_000 })
    if (status !== 0) {
      t.skip(`${CLIENT} cannot be installed: ${(stderr ?? '').trim().split('\n').at(-1) ?? ''}`)
      return false
    }
  }
  return true
}

suite('peers/exec by the Kubernetes client', () => {
  test('reads its streams apart and its exit code, and writes its input', async (t) => {
    if (!hasClient(t)) return
    const guest = new GuestPeer()
    const agent = await startAgent(t, { surroundings: { spawn: withGuest(t, guest) } })
    const token = await agent.onboard('acme')
    await leaveRunning(agent)
    await agent.again()
    guest.heard = (session, isNew) => {
      if (isNew) session.start()
      if (session.typed !== 'typed\n') return
      session.typed = ''
      session.print('to stdout\n')
      session.print('to stderr\n', 1)
      session.exit(0, 7)
    }
    const query = 'command=sh&command=-c&command=x&stdin=True&stdout=True&stderr=True&tty=False'
    const url = `wss://127.0.0.1:${agent.httpsPort}/v1/tenants/acme/pods/${POD}/exec?${query}`
    const { stdout } = await promisify(execFile)(python, [SCRIPT, url, token])
    assert.deepEqual(stdout.trim().split('\n'), [
      String.raw`stdout 'to stdout\n'`,
      String.raw`stderr 'to stderr\n'`,
      `protocol ${/protocol (.*)/u.exec(stdout)?.[1] ?? ''}`,
      'code 7',
    ])
    assert.match(stdout, /protocol v[45]\.channel\.k8s\.io/u)
    assert.deepEqual(guest.wrong, [])
  })
})

/** What `casemate up` starts again, and that it never stops trying. The processes are real ones. */
import assert from 'node:assert/strict'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { type Child, startChild } from '../../native/up/child.ts'
import { type Kept, keep } from '../../native/up/kept.ts'
import { temporary } from './temporary.ts'

interface Place {
  readonly directory: string
  readonly told: string[]
  /** Resolves when that has been told. */
  heard(what: RegExp): Promise<void>
  /** Resolves when so many lines of that kind were told. */
  heardTimes(times: number, what: RegExp): Promise<void>
  /** Keeps a shell script running. */
  keep(script: string, more?: { pausesMs?: number[]; steadyMs?: number }): Promise<Kept>
}

function placeOf(t: TestContext): Place {
  const directory = temporary(t)
  const told: string[] = []
  const listeners = new Set<() => void>()
  const heardTimes = (times: number, what: RegExp): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (told.filter((line) => what.test(line)).length >= times) resolve()
      }
      listeners.add(look)
      look()
    })
  return {
    directory,
    told,
    heardTimes,
    heard: (what) => heardTimes(1, what),
    keep: async (script, more = {}) => {
      const start = (signal: AbortSignal): Promise<Child> =>
        startChild(
          {
            name: 'agent',
            command: ['sh', '-c', script, 'sh', directory],
            ready: 'ready',
            logFile: path.join(directory, 'log'),
          },
          signal,
        )
      const tell = (line: string): void => {
        told.push(line)
        for (const look of listeners) look()
      }
      const kept = await keep({ name: 'agent', start, tell, pausesMs: [1, 2, 3], ...more })
      t.after(() => kept.end())
      return kept
    },
  }
}

const STAYS = 'echo ready; exec sleep 1000'

suite('native/up/kept', () => {
  test('starts a process again that was killed', async (t) => {
    const place = placeOf(t)
    const kept = await place.keep(STAYS)
    const first = kept.pid
    process.kill(first, 'SIGKILL')
    await place.heard(/^agent ready again/u)
    assert.notEqual(kept.pid, first)
    process.kill(kept.pid, 0)
    assert.match(place.told[0] ?? '', /^casemate-agent ended by itself: signal SIGKILL; starting/u)
  })

  test('does not try again what never came up', async (t) => {
    const place = placeOf(t)
    await assert.rejects(
      place.keep('echo no such key >&2; exit 78'),
      /did not start.*no such key/su,
    )
    assert.deepEqual(place.told, [])
  })

  test('goes on at the last pause with what does not come up, until it does', async (t) => {
    const place = placeOf(t)
    const script = `[ -e "$1/bad" ] && { echo 'operators must be a list' >&2; exit 78; }; ${STAYS}`
    const kept = await place.keep(script)
    const bad = path.join(place.directory, 'bad')
    writeFileSync(bad, '')
    process.kill(kept.pid, 'SIGKILL')
    const tries = 8
    await place.heardTimes(tries, /starting it again/u)
    rmSync(bad)
    await place.heard(/^agent ready again/u)
    process.kill(kept.pid, 0)
    const [first = '', ...others] = place.told.slice(0, tries)
    assert.match(first, /^casemate-agent ended by itself: signal SIGKILL; starting/u)
    // Each failure is told with the last words of that start, none silently.
    for (const line of others) assert.match(line, /did not start.*operators must be a list/su)
    assert.deepEqual(
      place.told.slice(0, tries).map((line) => /in (\S+) s$/u.exec(line)?.[1]),
      ['0.001', '0.002', '0.003', '0.003', '0.003', '0.003', '0.003', '0.003'],
    )
  })

  test('goes on with what comes up and does not stay, also when it says that all is well', async (t) => {
    const place = placeOf(t)
    await place.keep('echo ready; exit 0')
    await place.heardTimes(6, /^agent ready again/u)
    const ends = place.told.filter((line) => /ended by itself: exit code 0/u.test(line))
    assert.deepEqual(
      ends.slice(0, 6).map((line) => /in (\S+) s$/u.exec(line)?.[1]),
      ['0.001', '0.002', '0.003', '0.003', '0.003', '0.003'],
    )
  })

  test('counts from the beginning when it was up for long', async (t) => {
    const place = placeOf(t)
    const script =
      'echo x >> "$1/starts"; echo ready; [ "$(wc -l < "$1/starts")" -gt 20 ] && exec sleep 1000'
    const kept = await place.keep(script, { steadyMs: 0 })
    await place.heardTimes(20, /^agent ready again/u)
    process.kill(kept.pid, 0)
    const pauses = place.told.map((line) => /in (\S+) s$/u.exec(line)?.[1])
    assert.deepEqual(new Set(pauses), new Set(['0.001', undefined]))
  })

  test('ends in the pause before a new start, and starts nothing more', async (t) => {
    const place = placeOf(t)
    const kept = await place.keep(STAYS, { pausesMs: [600_000] })
    process.kill(kept.pid, 'SIGKILL')
    await place.heard(/starting it again in 600 s/u)
    await kept.end()
    assert.equal(place.told.length, 1)
    assert.throws(() => process.kill(kept.pid, 0), { code: 'ESRCH' })
  })

  test('ends what is just being started', async (t) => {
    const place = placeOf(t)
    const script = `[ -e "$1/slow" ] && { touch "$1/starting"; exec sleep 1000; }; ${STAYS}`
    const kept = await place.keep(script)
    writeFileSync(path.join(place.directory, 'slow'), '')
    process.kill(kept.pid, 'SIGKILL')
    while (!existsSync(path.join(place.directory, 'starting'))) {
      await new Promise((resolve) => setImmediate(resolve))
    }
    await kept.end()
    assert.ok(!place.told.some((line) => line.startsWith('agent ready again')))
  })

  test('ends with the signal it is told', async (t) => {
    const place = placeOf(t)
    const script = 'trap "touch $1/asked; kill \\$!; exit" USR2; sleep 1000 & echo ready; wait'
    const kept = await place.keep(script)
    await kept.end('SIGUSR2')
    assert.ok(existsSync(path.join(place.directory, 'asked')))
    assert.deepEqual(place.told, [])
  })
})

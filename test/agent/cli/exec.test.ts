/** `casemate exec` against a real agent, under a real terminal and with pipes; the guest is the tests'. */
import assert from 'node:assert/strict'
import { execFile, spawn, spawnSync } from 'node:child_process'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { suite, type TestContext, test } from 'node:test'
import { AGENT_SOCKET } from '../../../agent/compose.ts'
import type { GuestPeer, GuestSession } from '../guest-peer.ts'
import { guestScene } from '../guest-scene.ts'
import { POD } from '../left-pod.ts'

const root = path.resolve(import.meta.dirname, '../../..')
const MAIN = path.join(root, 'agent/cli/main.ts')
const DRIVER = path.join(import.meta.dirname, 'exec-terminal.py')

interface Scene {
  readonly guest: GuestPeer
  /** Arguments of node. */
  readonly words: readonly string[]
}

async function scene(t: TestContext): Promise<Scene> {
  const { agent, guest } = await guestScene(t)
  const socket = path.join(agent.directory, 'run', AGENT_SOCKET)
  return { guest, words: [MAIN, '--socket', socket, '--tenant', 'acme', 'exec'] }
}

/** A guest that does what it reads: its terminal, or its pipes, are real enough for a command line. */
const greeted = new WeakSet<GuestSession>()
const obey = (session: GuestSession, isNew: boolean): void => {
  if (isNew) session.start()
  if (session.credit[0] > 0 && !greeted.has(session)) {
    greeted.add(session)
    session.print('> ')
  }
  const told = session.typed
  session.typed = ''
  if (told.includes('size')) session.print(`${session.size?.join(' ') ?? 'none'} > `)
  else if (told.includes('\u0003')) session.print('interrupted > ')
  else if (told.includes('exit 7')) session.exit(0, 7)
  else session.typed = told
}

const run = async ({ words }: Scene, args: readonly string[], input = '') => {
  const child = spawn(process.execPath, [...words, ...args])
  child.stdin.end(input)
  const [stdout, stderr, code] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    new Promise((resolve) => child.once('close', resolve)),
  ])
  return { stdout, stderr, code }
}

const inTerminal = ({ words }: Scene, steps: readonly object[], args: readonly string[]) =>
  new Promise<string>((resolve, reject) => {
    const command = [DRIVER, JSON.stringify(steps), process.execPath, ...words, ...args]
    execFile('python3', command, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new Error(stderr))
    })
  })

const noPython = spawnSync('python3', ['-c', 'import pty']).status !== 0

suite('agent/cli/exec', () => {
  test('is a terminal in a terminal: size, change of size, interrupt, exit code', {
    skip: noPython && 'no python3, which makes the terminal',
  }, async (t) => {
    const place = await scene(t)
    place.guest.heard = obey
    const steps = [
      { until: '> ' },
      { type: 'size\r' },
      { until: '33 77 > ' },
      { size: [44, 99] },
      { type: 'size\r' },
      { until: ' > ' },
      { type: '\u0003' },
      { until: 'interrupted > ' },
      { type: 'exit 7\r' },
    ]
    const shown = await inTerminal(place, steps, ['-it', POD, '--', 'sh'])
    assert.match(shown, /(?:44 99|33 77) > /u)
    // ^C went to the program and did not end the command line, which gave the terminal back as it was.
    assert.match(shown, /\ncooked 7\n$/u)
  })

  test('leaves with the keys for it, and hangs up', {
    skip: noPython && 'no python3, which makes the terminal',
  }, async (t) => {
    const place = await scene(t)
    place.guest.heard = obey
    const steps = [{ until: '> ' }, { type: '\u0010\u0011' }]
    const shown = await inTerminal(place, steps, ['-it', POD, '--', 'sh'])
    assert.match(shown, /detached; the program was hung up on/u)
    assert.match(shown, /\ncooked 0\n$/u)
    await new Promise<void>((resolve) => {
      place.guest.heard = ({ closed }) => {
        if (closed) resolve()
      }
      for (const { closed } of place.guest.sessions.values()) if (closed) resolve()
    })
  })

  test('passes pipes through, apart, to their end, whatever they hold', async (t) => {
    const place = await scene(t)
    const input = 'x'.repeat(300_000)
    place.guest.heard = (session, isNew) => {
      if (isNew) session.start()
      if (!session.ended) return
      session.ended = false
      session.print(`${session.typed.length} bytes`)
      session.print('complaint', 1)
      session.exit(0, 0)
    }
    const told = await run(
      place,
      ['-i', '-e', 'A=1', '-u', 'web', '-w', '/tmp', POD, '--', 'wc', '-c'],
      input,
    )
    assert.deepEqual(told, { stdout: '300000 bytes', stderr: 'complaint', code: 0 })
  })

  test('ends as docker’s does: a signal, a program that is not there, a refusal', async (t) => {
    const place = await scene(t)
    const { guest } = place
    for (const [end, code, words] of [
      [(session: GuestSession) => session.exit(1, 9), 137, /^$/u],
      [(session: GuestSession) => session.exit(2, 9), 137, /^$/u],
      [(session: GuestSession) => session.fail(1, 'x is not in the image'), 127, /x is not in/u],
      [(session: GuestSession) => session.fail(2, 'cannot execute x'), 126, /cannot execute/u],
      [
        (session: GuestSession) => session.fail(3, 'no such user'),
        125,
        /no such user \(APP_USER\)/u,
      ],
      [(session: GuestSession) => session.fail(11, 'TICKET_POD: not here'), 125, /EXEC_REFUSED/u],
      [() => guest.hangUp(), 125, /EXEC_CUT_OFF/u],
    ] as const) {
      guest.heard = (session, isNew) => {
        if (!isNew) return
        if (code !== 127 && code !== 126 && code !== 125) session.start()
        end(session)
      }
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const told = await run(place, [POD, '--', 'x'])
      assert.equal(told.code, code, told.stderr)
      assert.match(told.stderr, words)
    }
    const notThere = await run(place, ['01890000-0000-7000-8000-00000000ffff', '--', 'x'])
    assert.deepEqual([notThere.code, /NOT_FOUND/u.test(notThere.stderr)], [125, true])
    const noTerminal = await run(place, ['-it', POD, '--', 'x'])
    assert.deepEqual([noTerminal.code, /no terminal/u.test(noTerminal.stderr)], [125, true])
  })

  test('does not read more than is taken from it', async (t) => {
    const place = await scene(t)
    let flooding: GuestSession | null = null
    place.guest.heard = (session, isNew) => {
      if (isNew) session.start()
      flooding = session
      session.print(Buffer.alloc(16_384, 'y'))
    }
    const child = spawn(process.execPath, [...place.words, POD, '--', 'yes'])
    const granted = (): number => flooding?.granted ?? 0
    for (let [before, same] = [-1, 0]; same < 20; ) {
      // oxlint-disable-next-line no-await-in-loop -- until nothing moves any more
      await new Promise((resolve) => setTimeout(resolve, 50))
      same = granted() === before && before > 0 ? same + 1 : 0
      before = granted()
    }
    assert.ok(granted() < 16 << 20, `${granted()} bytes`)
    child.kill()
  })
})

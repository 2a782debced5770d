/** `casemate cp` against a real agent. The pod is the tests', and sends what a pod never should. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { Readable } from 'node:stream'
import { buffer, text } from 'node:stream/consumers'
import { suite, type TestContext, test } from 'node:test'
import { openNamed } from '../../../agent/cli/local-tree.ts'
import { headerOf, TAR_END, type TarWrite } from '../../../agent/cli/tar-write.ts'
import { staysWithin, unpack } from '../../../agent/cli/unpack.ts'
import { AGENT_SOCKET } from '../../../agent/compose.ts'
import { temporary } from '../../native/temporary.ts'
import type { GuestPeer, GuestSession } from '../guest-peer.ts'
import { guestScene } from '../guest-scene.ts'
import { member } from '../harness.ts'
import { POD } from '../left-pod.ts'

const MAIN = path.resolve(import.meta.dirname, '../../../agent/cli/main.ts')

interface Scene {
  readonly guest: GuestPeer
  readonly directory: string
  readonly cp: (
    args: readonly string[],
    input?: Buffer,
  ) => Promise<{ readonly stdout: Buffer; readonly stderr: string; readonly code: unknown }>
}

async function scene(t: TestContext): Promise<Scene> {
  const { agent, guest } = await guestScene(t)
  const directory = temporary(t)
  const socket = path.join(agent.directory, 'run', AGENT_SOCKET)
  const words = [MAIN, '--socket', socket, '--tenant', 'acme', 'cp']
  const cp: Scene['cp'] = async (args, input) => {
    const child = spawn(process.execPath, [...words, ...args], { cwd: directory })
    child.stdin.on('error', () => undefined)
    child.stdin.end(input)
    const [stdout, stderr, code] = await Promise.all([
      buffer(child.stdout),
      text(child.stderr),
      new Promise((resolve) => child.once('close', resolve)),
    ])
    return { stdout, stderr, code }
  }
  return { guest, directory, cp }
}

/** A pod that sends words and an archive, as far as it is let. */
const sends =
  (archive: Buffer, words = '', code = 0) =>
  (session: GuestSession, isNew: boolean): void => {
    if (isNew) {
      session.start()
      left.set(session, [archive, Buffer.from(words)])
    }
    const rest = left.get(session)
    if (rest === undefined) return
    const after = [session.print(rest[0]), session.print(rest[1], 1)] as const
    left.set(session, after)
    if (after.some((bytes) => bytes.length > 0)) return
    left.delete(session)
    session.exit(0, code)
  }
const left = new WeakMap<GuestSession, readonly [out: Buffer, words: Buffer]>()

const entry = (name: string, more: Partial<TarWrite> = {}): Buffer => {
  const all = { type: 'file', link: Buffer.alloc(0), mode: 0o644, size: 0, mtime: 99 } as const
  return headerOf({ ...all, name: Buffer.from(name), ...more })
}
const file = (name: string, content: string, mode = 0o644): Buffer =>
  Buffer.concat([
    entry(name, { mode, size: content.length }),
    Buffer.from(content.padEnd(Math.ceil(content.length / 512) * 512, '\0')),
  ])
const directory = (name: string): Buffer => entry(name, { type: 'directory', mode: 0o755 })
const link = (name: string, to: string): Buffer =>
  entry(name, { type: 'symlink', link: Buffer.from(to) })
const archive = (...parts: readonly Buffer[]): Buffer => Buffer.concat([...parts, TAR_END])
/** An entry of a kind that no pod sends. */
function ofKind(kind: string, bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes)
  copy.write(kind, 156)
  copy.fill(' ', 148, 156)
  const sum = copy.reduce((total, byte) => total + byte, 0)
  copy.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return copy
}

/** What no pod of ours sends, and the words that each is refused with. */
const HOSTILE: readonly (readonly [why: string, archive: Buffer, words: RegExp])[] = [
  ['a name that leads out', archive(file('d/../../outside/x', 'x')), /leads out/u],
  ['an absolute name', archive(file('/outside/x', 'x')), /is absolute/u],
  ['another name', archive(file('e', 'x')), /was not asked for/u],
  [
    'another name behind the first',
    archive(file('d', 'x'), file('../outside/x', 'x')),
    /leads out/u,
  ],
  [
    'through a link of its own',
    archive(directory('d'), link('d/a', '.'), file('d/a/x', 'x')),
    /ELOOP|ENOTDIR/u,
  ],
  [
    'a hard link',
    archive(directory('d'), ofKind('1', entry('d/h', { link: Buffer.from('d') }))),
    /hardlink/u,
  ],
  ['a device', archive(directory('d'), ofKind('3', entry('d/null'))), /character-device/u],
  ['a FIFO', archive(directory('d'), ofKind('6', entry('d/p'))), /fifo/u],
  ['no archive', Buffer.alloc(1024, 'x'), /checksum|neither/u],
  ['half an archive', archive(file('d', 'x'.repeat(2000))).subarray(0, 1000), /ends/u],
  ['no end', file('d', 'x'), /ends/u],
]

suite('agent/cli/cp', () => {
  test('writes what comes, below a directory or under another name', async (t) => {
    const { guest, directory: here, cp } = await scene(t)
    const long = 'n'.repeat(150)
    guest.heard = sends(
      archive(
        directory('d'),
        file('d/run', 'x', 0o4755),
        file(`d/${long}`, 'long'),
        link('d/l', 'run'),
      ),
    )
    mkdirSync(path.join(here, 'there'))
    for (const [to, found] of [
      ['there', 'there/d'],
      ['other', 'other'],
    ] as const) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      assert.deepEqual(await cp([`${POD}:/x/d`, to]), {
        stdout: Buffer.alloc(0),
        stderr: '',
        code: 0,
      })
      const at = path.join(here, found)
      assert.deepEqual(readdirSync(at).toSorted(), ['l', long, 'run'])
      assert.equal(readFileSync(path.join(at, long), 'utf8'), 'long')
      assert.equal(readlinkSync(path.join(at, 'l')), 'run')
      const stats = lstatSync(path.join(at, 'run'))
      assert.deepEqual([stats.mode & 0o7000, stats.mode & 0o700], [0, 0o700])
      assert.equal(stats.mtimeMs, 99_000)
    }
  })

  test('ends with an archive that goes on and on behind its end', async (t) => {
    const zeros = function* (): Generator<Buffer> {
      yield TAR_END
      for (;;) yield Buffer.alloc(65_536)
    }
    const root = openNamed(temporary(t))
    const target = { root, first: null, rename: null, bytesMax: 10_000 }
    await assert.rejects(unpack(Readable.from(zeros()), target, assert.fail), /goes on/u)
    closeSync(root)
  })

  test('writes nothing outside of its target, whatever a pod sends', async (t) => {
    const here = temporary(t)
    const outside = path.join(here, 'outside')
    mkdirSync(outside)
    for (const [why, bytes, words] of HOSTILE) {
      const place = path.join(here, `there-${why.replaceAll(' ', '-')}`)
      mkdirSync(place)
      const target = { root: openNamed(place), first: Buffer.from('d'), rename: null }
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await assert.rejects(
        unpack(Readable.from([bytes]), { ...target, bytesMax: 10_000 }, () => undefined),
        words,
        why,
      )
      closeSync(target.root)
      assert.deepEqual(readdirSync(outside), [], why)
    }
    assert.ok(!existsSync(path.join(here, 'there-another-name/e')))
    assert.deepEqual(
      readdirSync(here).filter((name) => !name.startsWith('there')),
      ['outside'],
    )
  })

  test('follows no link that is in the way, and leaves out those that lead away', async (t) => {
    const { guest, directory: here, cp } = await scene(t)
    mkdirSync(path.join(here, 'there/d'), { recursive: true })
    writeFileSync(path.join(here, 'precious'), 'mine')
    symlinkSync('../../precious', path.join(here, 'there/d/f'))
    symlinkSync('..', path.join(here, 'there/d/up'))
    guest.heard = sends(archive(directory('d'), file('d/f', 'theirs')))
    assert.equal((await cp([`${POD}:/d`, 'there'])).code, 0)
    assert.equal(readFileSync(path.join(here, 'precious'), 'utf8'), 'mine')
    assert.equal(readFileSync(path.join(here, 'there/d/f'), 'utf8'), 'theirs')
    guest.heard = sends(archive(directory('d'), file('d/up/x', 'x')))
    const through = await cp([`${POD}:/d`, 'there'])
    assert.deepEqual([through.code, existsSync(path.join(here, 'there/x'))], [1, false])
    guest.heard = sends(
      archive(directory('d'), link('d/a', '/etc/passwd'), link('d/b', '../x'), link('d/c', 'f')),
    )
    const told = await cp([`${POD}:/d`, 'there'])
    assert.equal(told.code, 1)
    assert.match(told.stderr, /left out: "d\/a" is a link to "\/etc\/passwd"/u)
    assert.match(told.stderr, /left out: "d\/b"/u)
    assert.deepEqual(readdirSync(path.join(here, 'there/d')).toSorted(), ['c', 'f', 'up'])
  })

  test('takes no more than it is told to, and no words that steer a terminal', async (t) => {
    const { guest, cp } = await scene(t)
    guest.heard = sends(archive(directory('d'), file('d/f', 'x'.repeat(5000))))
    const told = await cp(['--max-size', '4k', `${POD}:/d`, '.'])
    assert.equal(told.code, 1)
    assert.match(told.stderr, /more than 4096 bytes: --max-size/u)
    guest.heard = sends(Buffer.alloc(0), 'cannot open "/d": \u001b[2Jno\n', 1)
    assert.deepEqual(await cp([`${POD}:/d`, '.']), {
      stdout: Buffer.alloc(0),
      stderr: 'cannot open "/d": no\n',
      code: 1,
    })
  })

  test('is a stream both ways, byte for byte', async (t) => {
    const { guest, cp } = await scene(t)
    const bytes = archive(directory('d'), file('d/f', 'x'.repeat(200_000)))
    guest.heard = sends(bytes)
    const out = await cp([`${POD}:/d`, '-'])
    assert.deepEqual([out.code, out.stderr], [0, ''])
    assert.ok(out.stdout.equals(bytes))
    const asked: unknown[] = []
    guest.heard = (session, isNew) => {
      if (isNew) {
        asked.push(session.request)
        session.start()
      }
      if (!session.ended) return
      asked.push(session.typed === bytes.toString())
      session.exit(0, 0)
    }
    assert.equal((await cp(['-', `${POD}:/data`], bytes)).code, 0)
    const errand = { kind: 'copy-in', owners: true, path: '/data', place: 'inside' }
    assert.deepEqual(asked, [{ app: null, errand, user: null }, true])
  })

  test('packs what GNU tar reads, and no link of it is followed', async (t) => {
    const { guest, directory: here, cp } = await scene(t)
    const long = 'n'.repeat(120)
    mkdirSync(path.join(here, 'src/sub'), { recursive: true })
    writeFileSync(path.join(here, 'src/sub', long), 'x'.repeat(100_000))
    writeFileSync(path.join(here, 'src/run'), 'y', { mode: 0o755 })
    symlinkSync('/etc/passwd', path.join(here, 'src/away'))
    symlinkSync('src', path.join(here, 'alias'))
    let got = ''
    let request: unknown
    guest.heard = (session, isNew) => {
      if (isNew) {
        ;({ request } = session)
        session.start()
      }
      if (!session.ended) return
      got = session.typed
      session.exit(0, 0)
    }
    assert.deepEqual(await cp(['-u', '0', 'alias', `${POD}:/in`]), {
      stdout: Buffer.alloc(0),
      stderr: '',
      code: 0,
    })
    const errand = { kind: 'copy-in', owners: false, path: '/in', place: 'named' }
    assert.deepEqual(request, { app: null, errand, user: '0' })
    const listed = spawnSync('tar', ['-tvf', '-'], { input: got, encoding: 'utf8' })
    assert.equal(listed.status, 0, listed.stderr)
    const lines = listed.stdout.trim().split('\n').toSorted()
    const names = lines.map((line) => line.replace(/^(\S+).*\d\d:\d\d (.*)$/u, '$1 $2'))
    assert.deepEqual(names, [
      '-rw-r--r-- alias/sub/'.concat(long),
      '-rwxr-xr-x alias/run',
      'drwxr-xr-x alias',
      'drwxr-xr-x alias/sub',
      'lrwxrwxrwx alias/away -> /etc/passwd',
    ])
    await cp(['src/.', `${POD}:/in`])
    assert.equal(member(member(request, 'errand'), 'place'), 'inside')
    assert.match(got, /^\.\0/u)
  })

  test('says what is wrong with its words', async (t) => {
    const { cp } = await scene(t)
    for (const args of [
      ['a', 'b'],
      [`${POD}:/a`, `${POD}:/b`],
      [`${POD}:a`, 'b'],
      ['nothing', `${POD}:/b`],
      [`${POD}:/a`, 'no/such/place'],
      ['--max-size', '1m', '.', `${POD}:/b`],
      ['--max-size', 'x', `${POD}:/b`, '.'],
    ]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const { code, stderr } = await cp(args)
      assert.equal(code, 2, `${args.join(' ')}: ${stderr}`)
    }
    assert.equal((await cp(['nobody:/a', '.'])).code, 3)
  })

  test('a link stays within, whatever other links there are', () => {
    for (const [target, depth, stays] of [
      ['a', 0, true],
      ['a/b', 0, true],
      ['..', 0, false],
      ['..', 1, true],
      ['../../a', 1, false],
      ['../../a', 2, true],
      ['/a', 9, false],
      ['./../a', 1, true],
      // Where `a` is a link to a directory above, this would be beyond the top.
      ['a/..', 9, false],
      ['../a/../b', 9, false],
    ] as const) {
      assert.equal(staysWithin(target, depth), stays, `${target} at ${depth}`)
    }
  })
})

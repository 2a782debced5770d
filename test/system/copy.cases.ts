/** Errands of our own code beside an app: copies in and out, and its list of processes. */
import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Readable } from 'node:stream'
import { suite, test } from 'node:test'
import { openNamed } from '../../agent/cli/local-tree.ts'
import { headerOf, TAR_END, type TarWrite } from '../../agent/cli/tar-write.ts'
import { unpack } from '../../agent/cli/unpack.ts'
import type { Errand } from '../../native/errand-request.ts'
import type { ExecEnd } from '../../native/exec-stream.ts'
import { parsePodPath } from '../../policy/index.ts'
import { code, errand, executions } from './executions.ts'
import type { Machine } from './harness.ts'
import { type Running, sh, start } from './launch.ts'

interface Done {
  readonly out: Buffer
  readonly words: string
  readonly end: ExecEnd
}

type Do = (wish: Errand, input?: Buffer, user?: string) => Promise<Done>

/** Does errands in a pod. */
function errandsOf(machine: Machine, running: Running): Do {
  const { begin } = executions(machine)
  return async (wish, input = Buffer.alloc(0), user) => {
    const exec = await begin(running, errand(wish, user))
    const out: Buffer[] = []
    let words = ''
    exec.on('output', (name, bytes) => {
      if (name === 'stdout') out.push(bytes)
      else words += bytes.toString()
      exec.taken(name, bytes.length)
    })
    const end = new Promise<ExecEnd>((resolve) => exec.on('end', resolve))
    exec.stdin(input)
    exec.stdinEof()
    return { end: await end, out: Buffer.concat(out), words }
  }
}

const out = (place: string): Errand => ({ kind: 'copy-out', path: parsePodPath(place) })
const into = (place: string, owners = false): Errand => ({
  kind: 'copy-in',
  path: parsePodPath(place),
  place: 'inside',
  owners,
})

const entry = (type: TarWrite['type'], name: string, size = 0, link = ''): Buffer => {
  const names = { name: Buffer.from(name), link: Buffer.from(link) }
  return headerOf({ type, ...names, mode: 0o750, size, mtime: 99 })
}
const padded = (content: Buffer): Buffer =>
  Buffer.concat([content, Buffer.alloc((512 - (content.length % 512)) % 512)])

/** A copy in and the same out again. */
async function copiesBothWays(machine: Machine, running: Running): Promise<void> {
  const run = errandsOf(machine, running)
  const content = Buffer.from(Array.from({ length: 100_000 }, (_, at) => at % 251))
  const archive = Buffer.concat([
    entry('directory', 'd'),
    entry('file', 'd/f', content.length),
    padded(content),
    entry('symlink', 'd/l', 0, 'f'),
    TAR_END,
  ])
  const wrote = await run(into('/tmp'), archive)
  assert.deepEqual([wrote.words, wrote.end], ['', code(0)])
  const read = await run(out('/tmp/d'))
  assert.deepEqual([read.words, read.end], ['', code(0)])
  const here = mkdtempSync(path.join(tmpdir(), 'casemate-copy-'))
  try {
    const root = openNamed(here)
    const target = { root, first: Buffer.from('d'), rename: null, bytesMax: 1 << 20 }
    assert.equal(await unpack(Readable.from([read.out]), target, assert.fail), true)
    closeSync(root)
    assert.ok(readFileSync(path.join(here, 'd/f')).equals(content))
    assert.equal(readlinkSync(path.join(here, 'd/l')), 'f')
  } finally {
    rmSync(here, { recursive: true })
  }
}

/** By what it copies of itself it says what it is itself. The app runs as root. */
async function isWhatTheAppIs(run: Do, first: number): Promise<void> {
  const own = async (file: string): Promise<readonly string[]> => {
    const both = [first, 'self'].map(async (of) => await run(out(`/proc/${of}/${file}`)))
    return (await Promise.all(both)).map(({ out: bytes }) => bytes.toString('latin1', 512))
  }
  const [app = '', self = ''] = await own('status')
  for (const name of ['Uid', 'Gid', 'Groups', 'CapPrm', 'CapBnd', 'NoNewPrivs', 'Seccomp']) {
    const line = new RegExp(`^${name}:.*$`, 'mu')
    assert.ok(line.test(app), name)
    assert.equal(line.exec(self)?.[0], line.exec(app)?.[0])
  }
  for (const file of ['cgroup', 'limits', 'mountinfo']) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    const [of, mine] = await own(file)
    assert.equal(mine, of, file)
  }
}

async function isListed(run: Do, first: number): Promise<void> {
  const listed = (await run({ kind: 'processes' })).out.toString().trim().split('\n')
  const [app1] = listed.map((line) => JSON.parse(line) as Record<string, unknown>)
  assert.deepEqual([app1?.['pid'], app1?.['uid'], app1?.['user']], [first, 0, 'root'])
}

/** A copy in and the same out again; and what else is under the app's limits. The app runs as root. */
export async function copies(machine: Machine, running: Running): Promise<void> {
  await copiesBothWays(machine, running)
  const run = errandsOf(machine, running)
  const [began] = running.events
  // As the host numbers it where the app has no namespace of processes.
  const first = machine.level === 'host' && began?.kind === 'started' ? began.guestPid : 1
  await isWhatTheAppIs(run, first)
  await isListed(run, first)
}

export function copyCases(machine: Machine): void {
  suite('system/copy', { concurrency: 1 }, () => {
    test('writes through no link, also one that comes and goes while it writes (CVE-2018-15664)', async () => {
      const running = await start(machine, {
        args: sh(
          'mkdir -p /place/d; echo up; cd /place; while :; do mv d e; ln -s /etc d; rm d; mv e d; done',
        ),
        capabilities: ['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_FOWNER'],
      })
      await running.says(/up/u)
      const run = errandsOf(machine, running)
      const files = Array.from({ length: 50 }, (_, at) => entry('file', `d/taken-${at}`))
      const archive = Buffer.concat([...files, TAR_END])
      for (let round = 0; round < 10; round += 1) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        const { end } = await run(into('/place', true), archive)
        assert.equal(end.kind, 'exit')
      }
      const etc = await run(out('/etc'))
      assert.deepEqual(etc.end, code(0))
      assert.ok(etc.out.includes('etc/'))
      assert.ok(!etc.out.includes('taken-'))
      await machine.spawn.kill(running.pod)
      await running.end()
    })
  })
}

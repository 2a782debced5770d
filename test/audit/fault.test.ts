import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chownSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { openAuditLog, verifyLog, verifyReceipt } from '../../audit/index.ts'
import { parseReceipt } from '../../audit/receipt.ts'
import { Keeper } from '../../audit/signer/keeper.ts'
import { afterwards, note, ORIGIN, open, prepare, scratch } from './harness.ts'

const child = path.join(import.meta.dirname, 'child.ts')
const RECORDS = 8

/** Runs the child, with a rule for strace where there is one, and gives its lines. */
function run(
  directory: string,
  inject: readonly string[] = [],
): { lines: string[]; killed: boolean } {
  const node = [process.execPath, child, directory, String(RECORDS)]
  const traced = ['strace', '-f', '-qq', '-o', '/dev/null', ...inject, ...node]
  const [command = '', ...args] = inject.length > 0 ? traced : node
  // One thread for file operations, because strace counts calls thread by thread.
  const env = { ...process.env, UV_THREADPOOL_SIZE: '1' }
  const ended = spawnSync(command, args, { encoding: 'utf8', env, timeout: 120_000 })
  const lines = ended.stdout.split('\n').filter((line) => line !== '')
  return { lines, killed: lines.at(-1) !== 'done' }
}

const payloads = (lines: readonly string[], word: string): string[][] =>
  lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.split(' ').slice(1))

/** Whatever was promised before must hold after: records, receipts, one history. */
async function checkPromises(
  t: TestContext,
  directory: string,
  lines: readonly string[],
): Promise<void> {
  const { options, vkey } = await prepare(t, directory)
  const log = await open(t, options)
  for (const [index = '', bytes = ''] of payloads(lines, 'acked')) {
    // oxlint-disable-next-line no-await-in-loop
    const entry = await log.read(Number(index))
    assert.equal(entry.bytes.toString('base64'), bytes, `record ${index}`)
  }
  const known: string[] = []
  for (const [encoded = ''] of payloads(lines, 'receipt')) {
    const text = Buffer.from(encoded, 'base64').toString()
    const { index, checkpoint } = parseReceipt(text)
    // oxlint-disable-next-line no-await-in-loop
    verifyReceipt(text, (await log.read(index)).bytes, [vkey])
    known.push(checkpoint)
  }
  await log.append(note(99))
  await log.close()
  const report = await verifyLog(options.directory, [vkey], { known })
  assert.deepEqual(report.problems, [])
  assert.equal(report.exitCode, 0)
}

const canTrace =
  spawnSync('strace', ['-qq', '-o', '/dev/null', '-e', 'inject=getppid:error=EIO', 'true'])
    .status === 0
const noTrace = canTrace ? false : 'strace is missing or may not trace'

suite('audit under SIGKILL', { skip: noTrace }, () => {
  for (const call of ['pwrite64', 'fdatasync', 'fsync', 'rename', 'unlink']) {
    test(`keeps every promise when it is killed at any ${call}`, {
      timeout: 600_000,
    }, async (t) => {
      let runs = 0
      for (let when = 1; ; when += when < 4 ? 1 : 3) {
        const directory = scratch(t)
        const { lines, killed } = run(directory, [
          '-e',
          `inject=${call}:signal=SIGKILL:when=${when}`,
        ])
        // oxlint-disable-next-line no-await-in-loop
        await checkPromises(t, directory, lines)
        runs += 1
        if (!killed) break
      }
      t.diagnostic(`${runs} runs`)
      assert.ok(runs > 1 || call === 'unlink')
    })
  }
})

suite('audit under failing system calls', { skip: noTrace }, () => {
  for (const [call, errno] of [
    ['fdatasync', 'EIO'],
    ['pwrite64', 'ENOSPC'],
  ] as const) {
    test(`stays closed after one ${errno} of ${call}, though the next would succeed`, async (t) => {
      const directory = scratch(t)
      const first = run(directory)
      assert.equal(payloads(first.lines, 'acked').length, RECORDS)
      const again = scratch(t)
      // The third of the appends, after those that opened the log.
      const inject = ['-e', `inject=${call}:error=${errno}:when=${call === 'pwrite64' ? 8 : 4}`]
      const { lines, killed } = run(again, inject)
      assert.ok(!killed)
      const acked = payloads(lines, 'acked').length
      const refused = payloads(lines, 'refused')
      assert.ok(acked < RECORDS, lines.join('\n'))
      assert.equal(acked + refused.length, RECORDS)
      for (const [code, found, file = ''] of refused) {
        assert.deepEqual([code, found], ['AUDIT_UNAVAILABLE', errno])
        assert.match(file, /\/log\/wal\//u)
      }
      // What ends could still be recorded.
      assert.equal(lines.filter((line) => line === 'reserved').length, refused.length)
      await checkPromises(t, again, lines)
    })
  }
})

suite('audit without privilege', () => {
  test('works for a user who owns nothing but the directory', async (t) => {
    if (process.getuid?.() !== 0) {
      t.skip('needs root, to be somebody else')
      return
    }
    const directory = scratch(t)
    const nobody = 65_534
    chownSync(directory, nobody, nobody)
    const ended = spawnSync(process.execPath, [child, directory, String(RECORDS)], {
      encoding: 'utf8',
      uid: nobody,
      gid: nobody,
    })
    if (ended.error !== undefined && 'code' in ended.error && ended.error.code === 'EACCES') {
      t.skip('another user may not run this Node')
      return
    }
    assert.equal(ended.stdout.trimEnd().split('\n').at(-1), 'done', ended.stderr)
    assert.equal(statSync(path.join(directory, 'log/wal')).uid, nobody)
    await checkPromises(t, directory, ended.stdout.split('\n'))
  })
})

suite('audit on a file that is taken away', () => {
  const ways: readonly (readonly [string, (file: string) => void])[] = [
    ['removed', (file) => rmSync(file)],
    ['moved', (file) => renameSync(file, `${file}.1`)],
    [
      'replaced',
      (file) => {
        copyFileSync(file, `${file}.1`)
        renameSync(`${file}.1`, file)
      },
    ],
  ]
  for (const [name, take] of ways) {
    test(`refuses to write to a log that was ${name}`, async (t) => {
      const { options } = await prepare(t)
      const log = await open(t, options)
      const wal = path.join(options.directory, 'wal')
      take(path.join(wal, readdirSync(wal).find((file) => file.endsWith('.wal')) ?? ''))
      await assert.rejects(log.append(note(1)), { code: 'AUDIT_UNAVAILABLE' })
      await assert.rejects(log.append(note(2)), { code: 'AUDIT_UNAVAILABLE' })
      assert.equal(log.unavailable?.code, 'AUDIT_UNAVAILABLE')
      assert.equal(await log.appendReserve(note(3)), null)
      assert.equal((await log.read(0)).index, 0)
    })
  }
})

/** A small file system of its own; null when this process may not mount. */
function mountSmall(t: TestContext): string | null {
  const directory = path.join(scratch(t), 'small')
  mkdirSync(directory)
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'casemate-test', directory])
  if (mounted.status !== 0) {
    t.skip('may not mount a tmpfs')
    return null
  }
  afterwards(t, () => spawnSync('umount', ['-l', directory]))
  return directory
}

suite('audit on a file system that is full or read-only', () => {
  test('refuses records and names the file, keeps what ends, goes on when there is space', async (t) => {
    const directory = mountSmall(t)
    if (directory === null) return
    const outside = await prepare(t)
    const options = { ...outside.options, directory: path.join(directory, 'log') }
    const log = await open(t, options)
    const filler = path.join(directory, 'filler')
    for (let free = true; free; ) {
      try {
        writeFileSync(filler, Buffer.alloc(4096), { flag: 'a' })
      } catch {
        free = false
      }
    }
    // The write-ahead log has its space; it is the publication that finds none.
    const kept = await log.append(note(1))
    await log.receipt(kept.index)
    await assert.rejects(
      async () => {
        for (;;) {
          // oxlint-disable-next-line no-await-in-loop
          await log.append(note(2))
        }
      },
      { code: 'AUDIT_UNAVAILABLE', errno: 'ENOSPC' },
    )
    assert.equal(log.unavailable?.path.startsWith(directory), true)
    assert.equal(await log.appendReserve(note(3)), null)
    await log.close()
    await assert.rejects(openAuditLog(options), { code: 'AUDIT_UNAVAILABLE', errno: 'ENOSPC' })
    rmSync(filler)
    const again = await open(t, options)
    assert.deepEqual((await again.read(kept.index)).bytes, kept.bytes)
    await again.append(note(4))
    await again.close()
    assert.equal((await verifyLog(options.directory, [outside.vkey])).exitCode, 0)
  })

  test('does not open on a read-only file system', async (t) => {
    const directory = mountSmall(t)
    if (directory === null) return
    const outside = await prepare(t)
    const options = { ...outside.options, directory: path.join(directory, 'log') }
    await (await open(t, options)).close()
    assert.equal(spawnSync('mount', ['-o', 'remount,ro', directory]).status, 0)
    await assert.rejects(openAuditLog(options), {
      code: 'AUDIT_UNAVAILABLE',
      errno: 'EROFS',
      path: options.directory,
    })
    assert.equal((await verifyLog(options.directory, [outside.vkey])).exitCode, 0)
  })
})

suite('audit after a signer was set back', () => {
  test('refuses to go on with a signer that signed less than was published', async (t) => {
    const { options, directory, server } = await prepare(t)
    const keys = path.join(directory, 'keys')
    const copy = path.join(directory, 'copy')
    cpSync(keys, copy, { recursive: true })
    const log = await open(t, options)
    await log.append(note(1))
    await log.close()
    server.close()
    rmSync(keys, { recursive: true })
    cpSync(copy, keys, { recursive: true })
    assert.equal(Keeper.open(keys, ORIGIN).vkey, options.vkey)
    assert.ok(readFileSync(path.join(keys, 'signed'), 'utf8').includes('"size":0'))
    const { options: same } = await prepare(t, directory)
    await assert.rejects(openAuditLog(same), { code: 'AUDIT_ROLLBACK' })
  })
})

import assert from 'node:assert/strict'
import { cpSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { openAuditLog, RECORD_BYTES_MAX, verifyLog, verifyReceipt } from '../../audit/index.ts'
import { Wal } from '../../audit/store/wal.ts'
import { isCanonicalObject, parseCanonical } from '../../policy/canonical.ts'
import { note, ORIGIN, open, prepare } from './harness.ts'

const typeOf = (bytes: Buffer): unknown => {
  const value = parseCanonical(bytes)
  return isCanonicalObject(value) ? value['type'] : null
}

suite('audit/log', () => {
  test('begins with a genesis that names its key', async (t) => {
    const { options, vkey } = await prepare(t)
    const log = await open(t, options)
    const value = parseCanonical((await log.read(0)).bytes)
    assert.ok(isCanonicalObject(value))
    assert.equal(value['type'], 'log.genesis')
    assert.equal(value['vkey'], vkey)
    assert.equal(value['origin'], ORIGIN)
    assert.equal(log.size, 1)
  })

  test('gives receipts that verify, for old and new records, and after it was opened again', async (t) => {
    const { options, vkey } = await prepare(t)
    const log = await open(t, options)
    const first = await log.append(note(1))
    const second = await log.append(note(2))
    assert.deepEqual([first.index, second.index], [1, 2])
    for (const { index, bytes } of [second, first]) {
      // oxlint-disable-next-line no-await-in-loop
      const receipt = await log.receipt(index)
      assert.equal(verifyReceipt(receipt, bytes, [vkey]).index, index)
      assert.throws(() => verifyReceipt(receipt, Buffer.from('{}'), [vkey]), {
        code: 'RECEIPT_MISMATCH',
      })
    }
    await log.close()
    const again = await open(t, options)
    verifyReceipt(await again.receipt(1), first.bytes, [vkey])
    assert.deepEqual((await again.read(2)).bytes, second.bytes)
    await assert.rejects(again.receipt(3), RangeError)
    await assert.rejects(again.read(3), RangeError)
  })

  test('commits many callers at once, each with an index of its own', async (t) => {
    const { options, vkey } = await prepare(t)
    const log = await open(t, options)
    const appended = await Promise.all(
      Array.from({ length: 700 }, (_, n) => log.append(note(n, 200))),
    )
    assert.deepEqual(
      appended.map(({ index }) => index),
      Array.from({ length: 700 }, (_, n) => n + 1),
    )
    const receipts = await Promise.all(appended.map(({ index }) => log.receipt(index)))
    for (const [position, receipt] of receipts.entries()) {
      verifyReceipt(receipt, appended[position]?.bytes ?? Buffer.alloc(0), [vkey])
    }
    let scanned = 0
    for await (const entry of log.scan(1)) {
      assert.deepEqual(entry.bytes, appended[entry.index - 1]?.bytes)
      scanned += 1
    }
    assert.equal(scanned, 700)
    await log.close()
    const report = await verifyLog(options.directory, [vkey])
    assert.equal(report.exitCode, 0)
    assert.equal(report.verified, 701)
    assert.equal(
      readdirSync(path.join(options.directory, 'wal')).filter((n) => n !== 'spare').length,
      1,
    )
  })

  test('refuses a record over the limit before anything is written', async (t) => {
    const { options } = await prepare(t)
    const log = await open(t, options)
    await assert.rejects(log.append(note(1, RECORD_BYTES_MAX)), { code: 'AUDIT_RECORD_TOO_LARGE' })
    await assert.rejects(log.append({ type: 'agent.stop', pid: 1, reason: '\ud800' }), {
      code: 'NOT_CANONICAL',
    })
    await assert.rejects(log.append({ type: 'agent.stop', pid: 0.5, reason: '' }), {
      code: 'NOT_CANONICAL',
    })
    assert.equal(log.size, 1)
    assert.equal((await log.append(note(1))).index, 1)
  })

  test('has one writer', async (t) => {
    const { options } = await prepare(t)
    const log = await open(t, options)
    await assert.rejects(openAuditLog(options), { code: 'AUDIT_LOG_BUSY' })
    await log.close()
    await open(t, options)
  })

  test('verifies while it is written', async (t) => {
    const { options, vkey } = await prepare(t)
    const log = await open(t, options)
    const state = { isDone: false }
    const write = async (): Promise<void> => {
      for (let n = 0; n < 60; n += 1) {
        // oxlint-disable-next-line no-await-in-loop
        const batch = await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(() => log.append(note(n))))
        // oxlint-disable-next-line no-await-in-loop
        await log.receipt(batch[7]?.index ?? 0)
      }
      state.isDone = true
    }
    const writing = write()
    let rounds = 0
    while (!state.isDone) {
      // oxlint-disable-next-line no-await-in-loop
      const report = await verifyLog(options.directory, [vkey])
      assert.deepEqual(report.problems, [])
      rounds += 1
    }
    await writing
    assert.ok(rounds > 0)
  })
})

suite('audit/open', () => {
  test('refuses an older copy of the log, because the signer signed more', async (t) => {
    const { options, directory } = await prepare(t)
    const log = await open(t, options)
    await log.append(note(1))
    await log.close()
    const backup = path.join(directory, 'backup')
    cpSync(options.directory, backup, { recursive: true })
    const again = await open(t, options)
    await again.append(note(2))
    await again.close()
    rmSync(options.directory, { recursive: true })
    cpSync(backup, options.directory, { recursive: true })
    await assert.rejects(openAuditLog(options), { code: 'AUDIT_ROLLBACK' })
    // Nothing was written to it on the way.
    assert.deepEqual(
      readFileSync(path.join(options.directory, 'public/checkpoint')),
      readFileSync(path.join(backup, 'public/checkpoint')),
    )
    rmSync(options.directory, { recursive: true })
    await assert.rejects(openAuditLog(options), { code: 'AUDIT_ROLLBACK' })
  })

  test('refuses to go on as a second writer on a copy', async (t) => {
    const { options, directory } = await prepare(t)
    const log = await open(t, options)
    await log.append(note(1))
    await log.close()
    const fork = path.join(directory, 'fork')
    cpSync(options.directory, fork, { recursive: true })
    const first = await open(t, options)
    const second = await open(t, { ...options, directory: fork })
    await first.receipt((await first.append(note(2))).index)
    const other = await second.append(note(3))
    await assert.rejects(second.receipt(other.index))
    await assert.rejects(second.close())
  })

  test('refuses a log of the size that was signed and with another record', async (t) => {
    const { options, directory } = await prepare(t)
    await (await open(t, options)).close()
    const fork = path.join(directory, 'fork')
    cpSync(options.directory, fork, { recursive: true })
    const log = await open(t, options)
    await log.append(note(1))
    await log.close()
    const { wal } = await Wal.open(path.join(fork, 'wal'), 1)
    await wal.append([Buffer.from('{}')])
    await wal.close()
    const forked = { ...options, directory: fork }
    await assert.rejects(openAuditLog(forked), {
      code: 'AUDIT_ROLLBACK',
      message: /not those that/u,
    })
  })

  test('refuses a write-ahead log that somebody wrote anew', async (t) => {
    const { options } = await prepare(t)
    const log = await open(t, options)
    await log.append(note(1))
    await log.close()
    const directory = path.join(options.directory, 'wal')
    rmSync(directory, { recursive: true })
    const { wal } = await Wal.open(directory, 0)
    await wal.append([Buffer.from('{}'), Buffer.from('{}')])
    await wal.close()
    await assert.rejects(openAuditLog(options), {
      code: 'AUDIT_CORRUPT',
      message: /record 0 is not/u,
    })
  })

  test('refuses a signer that lost its memory, and one with another key', async (t) => {
    const { options } = await prepare(t)
    const log = await open(t, options)
    await log.close()
    const other = await prepare(t)
    const swapped = { ...options, signerSocket: other.options.signerSocket }
    await assert.rejects(openAuditLog(swapped), { code: 'AUDIT_ROLLBACK' })
    await assert.rejects(openAuditLog({ ...options, vkey: other.vkey }), { code: 'AUDIT_CORRUPT' })
  })

  test('is unavailable without its signer, and names the socket', async (t) => {
    const { options, server } = await prepare(t)
    server.close()
    await assert.rejects(openAuditLog(options), {
      code: 'AUDIT_UNAVAILABLE',
      path: options.signerSocket,
    })
  })

  test('takes records from the reserve, once, and says so', async (t) => {
    const { options } = await prepare(t)
    const log = await open(t, options)
    const wal = path.join(options.directory, 'wal')
    const segment = path.join(wal, readdirSync(wal)[0] ?? '')
    renameSync(segment, `${segment}.away`)
    await assert.rejects(log.append(note(1)), { code: 'AUDIT_UNAVAILABLE', errno: 'ENOENT' })
    assert.equal(await log.appendReserve(note(2)), null)
    assert.equal(await log.appendReserve(note(3)), null)
    await log.close()
    await assert.rejects(openAuditLog(options), { code: 'AUDIT_CORRUPT' })
    renameSync(`${segment}.away`, segment)
    for (const round of [1, 2]) {
      // oxlint-disable-next-line no-await-in-loop
      const again = await open(t, options)
      const types: unknown[] = []
      // oxlint-disable-next-line no-await-in-loop
      for await (const { bytes } of again.scan(0)) types.push(typeOf(bytes))
      // The append that failed may be in the log: its batch was written before that was seen.
      const expected = ['log.genesis', 'agent.stop', 'agent.stop', 'agent.stop', 'log.recovered']
      assert.deepEqual(types, expected, `round ${round}`)
      // oxlint-disable-next-line no-await-in-loop
      await again.close()
    }
  })

  test('publishes again what a crash left unpublished', async (t) => {
    const { options, vkey } = await prepare(t)
    const log = await open(t, options)
    const appended = await Promise.all(Array.from({ length: 300 }, (_, n) => log.append(note(n))))
    await log.close()
    // As if neither checkpoint nor tiles had reached the disk.
    rmSync(path.join(options.directory, 'public'), { recursive: true })
    const again = await open(t, options)
    verifyReceipt(await again.receipt(200), appended[199]?.bytes ?? Buffer.alloc(0), [vkey])
    await again.close()
    assert.equal((await verifyLog(options.directory, [vkey])).exitCode, 0)
  })

  test('records that it cut a torn tail', async (t) => {
    const { options } = await prepare(t)
    const log = await open(t, options)
    await log.close()
    const wal = path.join(options.directory, 'wal')
    const file = path.join(wal, readdirSync(wal)[0] ?? '')
    const bytes = readFileSync(file)
    // Several blocks, so that the next record does not happen to write over all of it.
    bytes.fill('CMWB torn', 8192, 8192 + 20_000)
    writeFileSync(file, bytes)
    const again = await open(t, options)
    assert.equal(again.size, 2)
    assert.equal(typeOf((await again.read(1)).bytes), 'log.recovered')
    await again.close()
    assert.equal((await open(t, options)).size, 2)
  })
})

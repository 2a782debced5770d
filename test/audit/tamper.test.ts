import assert from 'node:assert/strict'
import {
  cpSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { openAuditLog, verifyLog } from '../../audit/index.ts'
import { leafHash } from '../../audit/merkle.ts'
import { checkpointText, signerFromSeed, signNote } from '../../audit/note.ts'
import { parseReceipt } from '../../audit/receipt.ts'
import { decodeBundle, encodeBundle } from '../../audit/tiles.ts'
import { scanSegment } from '../../audit/wal-format.ts'
import { note, open, type Place, prepare } from './harness.ts'

/** Every file of the log that holds something, relative to its directory. */
const filesOf = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(path.join(directory, name)).isFile())
    .filter((name) => !['lock', 'reserve', 'wal/spare'].includes(name))
    .toSorted()

interface Prepared {
  readonly place: Place
  readonly checkpoints: readonly string[]
}

/** A log of a few records, closed, that was published at several sizes. */
async function fill(t: TestContext, records: number): Promise<Prepared> {
  const place = await prepare(t)
  const log = await open(t, { ...place.options, segmentBytes: 65_536 })
  const checkpoints: string[] = []
  for (let n = 0; n < records; n += 1) {
    // oxlint-disable-next-line no-await-in-loop
    const { index } = await log.append(note(n))
    if (n % 4 !== 0) continue
    // oxlint-disable-next-line no-await-in-loop
    checkpoints.push(parseReceipt(await log.receipt(index)).checkpoint)
  }
  await log.close()
  return { place, checkpoints }
}

const isRefused = (place: Place, directory: string): Promise<boolean> =>
  openAuditLog({ ...place.options, directory, segmentBytes: 65_536 }).then(
    async (log) => {
      await log.close()
      return false
    },
    () => true,
  )

suite('audit/verify on a log that was tampered with', () => {
  test('notices every changed byte of checkpoint, tiles, entries and write-ahead log', {
    timeout: 600_000,
  }, async (t) => {
    const { place } = await fill(t, 6)
    const { directory } = place.options
    assert.equal((await verifyLog(directory, [place.vkey])).exitCode, 0)
    let flips = 0
    for (const name of filesOf(directory)) {
      const file = path.join(directory, name)
      const whole = readFileSync(file)
      // Partial tiles of older sizes are not part of this checkpoint: who reads them has the
      // checkpoint of that size. The write-ahead log counts up to its end, the rest is space.
      const isOlder = name.includes('.p/') && !name.endsWith('.p/7')
      const isWal = name.endsWith('.wal')
      const length = isOlder ? 0 : isWal ? scanSegment(whole).end : whole.length
      for (let position = 0; position < length; position += 1) {
        // All of each batch's header, and samples of what follows, most of which is padding.
        if (isWal && position % 4096 > 100 && position % 97 > 0) continue
        const changed = Buffer.from(whole)
        changed.writeUInt8(changed.readUInt8(position) ^ 1, position)
        writeFileSync(file, changed)
        // oxlint-disable-next-line no-await-in-loop
        const report = await verifyLog(directory, [place.vkey])
        // A damaged last batch looks like a torn write to who only reads; opening compares it.
        // oxlint-disable-next-line no-await-in-loop
        const noticed = report.exitCode !== 0 || (await isRefused(place, directory))
        assert.ok(noticed, `${name}, byte ${position}`)
        flips += 1
      }
      writeFileSync(file, whole)
    }
    assert.ok(flips > 2000)
    assert.equal((await verifyLog(directory, [place.vkey])).exitCode, 0)
  })

  test('names the record that was changed', async (t) => {
    const { place } = await fill(t, 9)
    const file = path.join(place.options.directory, 'public/tile/entries/000.p/10')
    const text = readFileSync(file, 'latin1')
    writeFileSync(file, text.replace('"pid":4', '"pid":5'), 'latin1')
    const report = await verifyLog(place.options.directory, [place.vkey])
    assert.equal(report.exitCode, 1)
    assert.equal(report.problems[0]?.index, 5)
    assert.equal(report.verified, 9)
  })

  test('notices a record that was changed together with its tile', async (t) => {
    const { place } = await fill(t, 9)
    const tiles = path.join(place.options.directory, 'public/tile')
    const bundle = path.join(tiles, 'entries/000.p/10')
    const entries = decodeBundle(readFileSync(bundle)) ?? []
    const changed = entries.map((entry) =>
      Buffer.from(entry.toString('latin1').replace('"pid":4', '"pid":5'), 'latin1'),
    )
    writeFileSync(bundle, encodeBundle(changed))
    writeFileSync(path.join(tiles, '0/000.p/10'), Buffer.concat(changed.map(leafHash)))
    const report = await verifyLog(place.options.directory, [place.vkey])
    assert.equal(report.exitCode, 1)
    assert.match(report.problems[0]?.message ?? '', /not the root of these records/u)
  })

  test('says incomplete, not tampered, of what is missing', async (t) => {
    const { place } = await fill(t, 9)
    const { directory } = place.options
    for (const name of ['tile/entries/000.p/10', 'tile/0/000.p/10', 'checkpoint']) {
      const file = path.join(directory, 'public', name)
      const bytes = readFileSync(file)
      rmSync(file)
      // oxlint-disable-next-line no-await-in-loop
      const report = await verifyLog(directory, [place.vkey])
      assert.equal(report.exitCode, 2, name)
      writeFileSync(file, bytes)
    }
  })

  test('notices a log cut back to an older checkpoint, given a newer one from elsewhere', async (t) => {
    const { place, checkpoints } = await fill(t, 13)
    const { directory } = place.options
    const [older = '', newer = ''] = checkpoints.slice(-2)
    const file = path.join(directory, 'public/checkpoint')
    writeFileSync(file, older)
    const alone = await verifyLog(directory, [place.vkey])
    assert.equal(alone.exitCode, 0)
    assert.match(alone.notExcluded.join(' '), /no older checkpoint was given/u)
    const report = await verifyLog(directory, [place.vkey], { known: [newer] })
    assert.equal(report.exitCode, 1)
    assert.match(report.problems[0]?.message ?? '', /cut off/u)
    // Whoever left the write-ahead log there left it all: opening publishes it again.
    await (await open(t, place.options)).close()
    assert.equal((await verifyLog(directory, [place.vkey], { known: [newer] })).exitCode, 0)
  })

  test('notices another history, even one that the same key signed', async (t) => {
    const { place, checkpoints } = await fill(t, 9)
    const seed = Buffer.from(readFileSync(path.join(place.directory, 'keys/key'), 'utf8'), 'base64')
    const thief = signerFromSeed('casemate.test/log', seed)
    assert.equal(thief.vkey, place.vkey)
    const forged = signNote(
      checkpointText({ origin: thief.name, size: 6, root: Buffer.alloc(32, 1) }),
      thief,
    )
    const report = await verifyLog(place.options.directory, [place.vkey], {
      known: [...checkpoints, forged],
    })
    assert.equal(report.exitCode, 1)
    assert.match(report.problems[0]?.message ?? '', /another history/u)
  })

  test('accepts no key but those it was given, and a copy of the public directory alone', async (t) => {
    const { place, checkpoints } = await fill(t, 9)
    const other = signerFromSeed('casemate.test/log', Buffer.alloc(32, 7))
    const report = await verifyLog(place.options.directory, [other.vkey])
    assert.equal(report.exitCode, 1)
    assert.equal(report.problems[0]?.path, 'checkpoint')
    const copy = path.join(place.directory, 'copy')
    cpSync(path.join(place.options.directory, 'public'), copy, { recursive: true })
    const good = await verifyLog(copy, [other.vkey, place.vkey], { known: checkpoints })
    assert.equal(good.exitCode, 0)
    assert.equal(good.unsigned, null)
    assert.equal(good.verified, 10)
  })

  test('counts records that no checkpoint covers yet', async (t) => {
    const { place, checkpoints } = await fill(t, 13)
    const file = path.join(place.options.directory, 'public/checkpoint')
    writeFileSync(file, checkpoints.at(-1) ?? '')
    const report = await verifyLog(place.options.directory, [place.vkey])
    assert.equal(report.unsigned, 0)
    writeFileSync(file, checkpoints.at(-2) ?? '')
    assert.equal((await verifyLog(place.options.directory, [place.vkey])).unsigned, 4)
  })

  test('refuses a log whose write-ahead log was emptied', async (t) => {
    const { place } = await fill(t, 9)
    const wal = path.join(place.options.directory, 'wal')
    for (const name of readdirSync(wal)) truncateSync(path.join(wal, name), 4096)
    await assert.rejects(openAuditLog(place.options), { code: 'AUDIT_CORRUPT' })
  })
})

/** The reader of pod logs: whole records in order, told when it was overtaken, unmoved by nonsense. */
import assert from 'node:assert/strict'
import type { FileHandle } from 'node:fs/promises'
import { truncate } from 'node:fs/promises'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import {
  createPodLog,
  type PodLogGap,
  PodLogReader,
  type PodLogRecord,
  SEGMENT_BYTES,
} from '../../native/pod-log.ts'
import { followPodLog } from '../../native/pod-log-follow.ts'
import { HEADER, LogWriter } from './pod-log-writer.ts'
import { temporary } from './temporary.ts'

/** Small enough to be gone round quickly. */
const SIZE = HEADER + 5 * SEGMENT_BYTES

interface Log {
  readonly place: string
  readonly writer: LogWriter
  readonly file: FileHandle
}

async function freshLog(t: TestContext): Promise<Log> {
  const place = path.join(temporary(t), 'log')
  const file = await createPodLog(place, SIZE)
  t.after(() => file.close())
  return { place, file, writer: new LogWriter(file, SIZE) }
}

async function readAll(place: string, since = 0): Promise<readonly (PodLogRecord | PodLogGap)[]> {
  const never = new AbortController().signal
  const found = []
  const log = followPodLog(place, { since, follow: false, ended: never, gone: never })
  for await (const one of log) found.push(one)
  return found
}

const textOf = (found: PodLogRecord | PodLogGap | undefined): string =>
  found?.kind === 'record' ? found.payload.toString() : JSON.stringify(found)

suite('native/pod-log', () => {
  test('says whose output it is, and takes no app that cannot be', async (t) => {
    const { place, writer } = await freshLog(t)
    await writer.write('one\n')
    await writer.write('eight\n', 2, 0n, 7)
    const apps = (await readAll(place)).map((one) => (one.kind === 'record' ? one.app : null))
    assert.deepEqual(apps, [0, 7])
    await writer.write('nine\n', 1, 0n, 8)
    await assert.rejects(readAll(place), { code: 'POD_LOG_DAMAGED' })
  })

  test('gives every record once, with stream, time and where to go on', async (t) => {
    const { place, writer } = await freshLog(t)
    await writer.write('one\n')
    await writer.write('two\n', 2)
    const found = await readAll(place)
    assert.deepEqual(found.map(textOf), ['one\n', 'two\n'])
    const [first, second] = found
    assert.ok(first?.kind === 'record' && second?.kind === 'record')
    assert.equal(first.stream, 'stdout')
    assert.equal(second.stream, 'stderr')
    assert.equal(first.time_ns, 1_700_000_000_000_000_000n)
    assert.deepEqual((await readAll(place, first.next)).map(textOf), ['two\n'])
    assert.deepEqual(await readAll(place, second.next), [])
  })

  test('steps over the ends of segments, whatever fits in them', async (t) => {
    const { place, writer } = await freshLog(t)
    // 16 + 65,504 = 65,520: a tail of 16 bytes, in which an empty padding record fits.
    const texts = ['a'.repeat(65_504), 'b'.repeat(65_510), 'c'.repeat(100), 'd'.repeat(65_520)]
    for (const text of texts) await writer.write(text)
    const lengths = (await readAll(place)).map((found) => textOf(found).length)
    assert.deepEqual(lengths, [65_504, 65_510, 100, 65_520])
  })

  test('begins at any offset with the first whole record after it', async (t) => {
    const { place, writer } = await freshLog(t)
    for (const text of ['one', 'two', 'three']) await writer.write(text)
    const all = await readAll(place)
    const [first] = all
    assert.ok(first?.kind === 'record')
    for (let since = 1; since <= first.next; since += 1) {
      assert.deepEqual((await readAll(place, since)).map(textOf), ['two', 'three'], String(since))
    }
    assert.deepEqual(await readAll(place, 10 ** 12), [])
  })

  test('says what was lost when the writer was faster, and goes on from what is whole', async (t) => {
    const { place, writer } = await freshLog(t)
    const reader = await PodLogReader.open(place)
    t.after(() => reader.close())
    for (let index = 0; index < 40; index += 1) await writer.write(`${index}:${'x'.repeat(16_000)}`)
    const [gap] = await reader.read()
    assert.ok(gap?.kind === 'gap')
    assert.equal(gap.from, 0)
    assert.equal(gap.to % SEGMENT_BYTES, 0)
    assert.ok(gap.to <= writer.written - SEGMENT_BYTES)
    const rest = await readAll(place, gap.to)
    const numbers = rest.map((found) => Number(textOf(found).split(':')[0]))
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => (numbers[0] ?? 0) + index),
    )
    assert.equal(numbers.at(-1), 39)
  })

  test('loses nothing while it keeps up with a writer that goes round many times', async (t) => {
    const { place, writer } = await freshLog(t)
    const ended = new AbortController()
    const never = new AbortController().signal
    const log = followPodLog(place, { since: 0, follow: true, ended: ended.signal, gone: never })
    for (let index = 0; index < 60; index += 1) {
      await writer.write(`${index}:${'y'.repeat(9000)}`)
      const { value } = await log.next()
      assert.ok(value !== undefined)
      assert.equal(textOf(value).split(':')[0], String(index))
    }
    ended.abort()
    assert.equal((await log.next()).done, true)
  })

  test('follows until the pod has ended and everything is read, or the reader has gone', async (t) => {
    const { place, writer } = await freshLog(t)
    const ended = new AbortController()
    const gone = new AbortController()
    const options = { since: 0, follow: true, ended: ended.signal, gone: gone.signal }
    const log = followPodLog(place, options)
    const waiting = log.next()
    await writer.write('late')
    assert.equal(textOf((await waiting).value ?? undefined), 'late')
    await writer.write('last')
    ended.abort()
    assert.equal(textOf((await log.next()).value ?? undefined), 'last')
    assert.equal((await log.next()).done, true)
    const other = followPodLog(place, {
      ...options,
      since: writer.written,
      ended: new AbortController().signal,
    })
    const blocked = other.next()
    gone.abort()
    assert.equal((await blocked).done, true)
  })
})

suite('native/pod-log, written by a VMM that was taken over', () => {
  const wrong: readonly (readonly [string, number, Buffer])[] = [
    ['another magic', 0, Buffer.from('x')],
    ['another version', 8, Buffer.from([2])],
    ['another segment size', 12, Buffer.from([1])],
    ['a capacity of its own', 16, Buffer.from([0, 0, 4])],
    ['an end beyond all numbers', 31, Buffer.from([255])],
    ['a length over its segment', HEADER, Buffer.from([255, 255, 255, 255])],
    ['a stream nobody knows', HEADER + 4, Buffer.from([9])],
    ['bytes that must be zero', HEADER + 6, Buffer.from([1])],
  ]
  for (const [what, at, bytes] of wrong) {
    test(`ends with POD_LOG_DAMAGED at ${what}`, async (t) => {
      const { place, file, writer } = await freshLog(t)
      await writer.write('one')
      await file.write(bytes, 0, bytes.length, at)
      await assert.rejects(readAll(place), { code: 'POD_LOG_DAMAGED' })
    })
  }

  test('ends when the file was cut short', async (t) => {
    const { place, writer } = await freshLog(t)
    await writer.write('one')
    await truncate(place, HEADER + 4)
    await assert.rejects(readAll(place), { code: 'POD_LOG_DAMAGED' })
  })

  test('creates no log that could not be read while it is written', async (t) => {
    const place = path.join(temporary(t), 'log')
    await assert.rejects(createPodLog(place, HEADER + SEGMENT_BYTES), RangeError)
  })
})

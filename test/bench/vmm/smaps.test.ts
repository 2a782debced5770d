/** Guest memory is told from the VMM's own, however it is mapped. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import { parseSmaps, sampleOf } from '../../../native/self-test/smaps.ts'

const GUEST_BYTES = 0x4000

interface Piece {
  readonly at: string
  readonly rss: number
  readonly offset?: number
  readonly name?: string
}

/** As the kernel writes it, shortened. */
const block = ({ at, rss, offset = 0, name = '' }: Piece): string =>
  [
    `${at} rw-p ${offset.toString(16).padStart(8, '0')} 00:01 1027 ${name === '' ? '' : `                 ${name}`}`,
    'Size:                 16 kB',
    'KernelPageSize:        4 kB',
    `Rss: ${String(rss).padStart(19)} kB`,
    'Pss:                   1 kB',
    'THPeligible:           0',
    'VmFlags: rd wr mr mw me nr ac ',
    '',
  ].join('\n')

const sample = (...pieces: readonly Piece[]): ReturnType<typeof sampleOf> =>
  sampleOf(parseSmaps(pieces.map(block).join('')), GUEST_BYTES)

const own = [
  { at: '00400000-00500000', rss: 300, name: '/usr/bin/casemate-vmm' },
  { at: '7fff0000-7fff8000', rss: 20, name: '[stack]' },
] as const

suite('bench/smaps', () => {
  test('reads the mappings of this very process', () => {
    const mappings = parseSmaps(readFileSync('/proc/self/smaps', 'utf8'))
    const status = readFileSync('/proc/self/status', 'utf8')
    const resident = Number(/^VmRSS:\s+(\d+) kB$/mu.exec(status)?.[1])
    const sum = mappings.reduce((total, { rss_kib }) => total + rss_kib, 0)
    assert.ok(mappings.some(({ name }) => name === '[stack]'))
    assert.ok(mappings.every(({ start, end }) => start < end))
    // Two moments, and a counter that the kernel keeps by processor: near, not equal.
    assert.ok(Math.abs(sum - resident) < resident / 4, `${sum} and ${resident} KiB`)
  })

  test('leaves out the one mapping of a guest that was booted', () => {
    const found = sample(...own, { at: '7f000000-7f004000', rss: 16 })
    assert.deepEqual(found, { overhead_kib: 320, has_guest: true })
  })

  test('leaves out the pieces of a guest that was restored, and the memory between them', () => {
    const memfd = '/memfd:casemate-memory (deleted)'
    const found = sample(
      ...own,
      { at: '7f000000-7f001000', rss: 1 },
      { at: '7f001000-7f002000', rss: 2, offset: 0x1000, name: memfd },
      { at: '7f002000-7f003000', rss: 3 },
      { at: '7f003000-7f004000', rss: 4, offset: 0x3000, name: memfd },
      { at: '7f004000-7f005000', rss: 5 },
    )
    assert.deepEqual(found, { overhead_kib: 325, has_guest: true })
  })

  test('leaves out a guest that another program maps from a file of its own', () => {
    const pieces = [...own, { at: '7f000000-7f004000', rss: 16, name: '/tmp/a/fc.memory' }]
    const mappings = parseSmaps(pieces.map(block).join(''))
    const found = sampleOf(mappings, GUEST_BYTES, /\/fc\.memory$/u)
    assert.deepEqual(found, { overhead_kib: 320, has_guest: true })
    assert.equal(sampleOf(mappings, GUEST_BYTES / 2).has_guest, false)
  })

  test('counts everything before guest memory is mapped, and says so', () => {
    assert.deepEqual(sample(...own), { overhead_kib: 320, has_guest: false })
  })

  test('refuses a mapping that is guest memory in part', () => {
    const memfd = '/memfd:casemate-memory (deleted)'
    assert.throws(
      () =>
        sample(
          { at: '7f000000-7f001000', rss: 1, name: memfd },
          { at: '7f003000-7f005000', rss: 2 },
        ),
      RangeError,
    )
  })

  test('refuses what is no smaps, and takes nothing from a process that has ended', () => {
    assert.throws(() => parseSmaps('Rss: 1 kB\n'), RangeError)
    assert.deepEqual(parseSmaps(''), [])
  })
})

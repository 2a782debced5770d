/**
 * Verifies a log offline, from its public directory alone: every entry is hashed again, every tile
 * computed again from the entries, the root compared with the signed checkpoint. What the log says
 * of itself is never taken for granted, and the report says what it could not exclude.
 *
 * Works on a log that is being written: what the checkpoint covers never changes.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { isCanonicalObject, parseCanonical } from '../policy/canonical.ts'
import { errnoOf } from './errors.ts'
import { Frontier, HASH_BYTES, leafHash } from './merkle.ts'
import { type Checkpoint, NoteError, openCheckpoint, parseVkey } from './note.ts'
import { isRecordType, RECORD_VERSION } from './record.ts'
import { decodeBundle, partialWidth, TILE_WIDTH, tilePath } from './tiles.ts'
import { scanSegment } from './wal-format.ts'

/** `tampered`: something is not as it was logged. `incomplete`: something is missing, so unknown. */
export interface Problem {
  readonly kind: 'tampered' | 'incomplete'
  /** First record it concerns; null where it is not about one. */
  readonly index: number | null
  readonly path: string
  readonly message: string
}

export interface VerifyReport {
  /** 0: everything holds. 1: tampered. 2: incomplete. */
  readonly exitCode: 0 | 1 | 2
  readonly origin: string | null
  readonly size: number
  /** The signed root, base64. */
  readonly root: string | null
  /** Records whose bytes were hashed and found to be those that were signed. */
  readonly verified: number
  /** Records by type. */
  readonly types: Readonly<Record<string, number>>
  /** Records in the write-ahead log that no checkpoint covers yet; null when it was not readable. */
  readonly unsigned: number | null
  readonly problems: readonly Problem[]
  /** What nobody can tell from this directory alone, in sentences. */
  readonly notExcluded: readonly string[]
}

export interface VerifyOptions {
  /** Signed checkpoints kept elsewhere, older or equal: the log must still begin with each. */
  readonly known?: readonly string[]
}

const PROBLEMS_MAX = 64

class Verification {
  readonly problems: Problem[] = []
  readonly types: Record<string, number> = {}
  /** Hashes of the tile that is being filled, by level. */
  readonly #edge: Buffer[][] = [[]]
  readonly #frontier = new Frontier()
  /** Older sizes to look at on the way, with the root they must have. */
  readonly #marks: Map<number, Buffer>
  readonly #directory: string
  verified = 0
  readonly #size: number

  constructor(directory: string, size: number, marks: Map<number, Buffer>) {
    this.#directory = directory
    this.#size = size
    this.#marks = marks
  }

  report(problem: Problem): void {
    if (this.problems.length < PROBLEMS_MAX) this.problems.push(problem)
  }

  root(): Buffer {
    return this.#frontier.root()
  }

  /** A file the checkpoint implies; the full one may have taken a partial one's place. */
  async #read(level: number | 'entries', index: number, width: number): Promise<Buffer | null> {
    const names = [tilePath(level, index, width), tilePath(level, index)]
    for (const name of new Set(names)) {
      try {
        // oxlint-disable-next-line no-await-in-loop
        return await readFile(path.join(this.#directory, name))
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error
      }
    }
    const first = level === 'entries' ? index * TILE_WIDTH : null
    const [wanted = ''] = names
    this.report({ kind: 'incomplete', index: first, path: wanted, message: 'is missing' })
    return null
  }

  async walk(): Promise<void> {
    for (let from = 0; from < this.#size; from += TILE_WIDTH) {
      // One bundle in memory at a time, however long the log is.
      // oxlint-disable-next-line no-await-in-loop
      if (!(await this.#bundle(from, Math.min(TILE_WIDTH, this.#size - from)))) return
    }
    for (const [level, hashes] of this.#edge.entries()) {
      const width = partialWidth(level, this.#size)
      const index = Math.floor(this.#size / TILE_WIDTH ** (level + 1))
      // oxlint-disable-next-line no-await-in-loop
      if (width > 0) await this.#compare({ level, index, hashes })
    }
  }

  async #bundle(from: number, width: number): Promise<boolean> {
    const index = from / TILE_WIDTH
    const name = tilePath('entries', index, width)
    const bytes = await this.#read('entries', index, width)
    if (bytes === null) return false
    const entries = decodeBundle(bytes)
    if (entries === null || entries.length < width) {
      this.report({
        kind: 'tampered',
        index: from,
        path: name,
        message: `does not hold ${width} records`,
      })
      return false
    }
    const leaves = await this.#read(0, index, width)
    for (const [position, entry] of entries.slice(0, width).entries()) {
      this.#entry(from + position, entry, { name, expected: hashAt(leaves, position) })
      // oxlint-disable-next-line no-await-in-loop
      await this.#push(0, leafHash(entry))
    }
    return true
  }

  #entry(
    index: number,
    entry: Buffer,
    tile: { readonly name: string; readonly expected: Buffer | null },
  ): void {
    const found = leafHash(entry)
    if (tile.expected !== null && !tile.expected.equals(found)) {
      const message = `record ${index} hashes to ${found.toString('hex')}, its tile says ${tile.expected.toString('hex')}`
      this.report({ kind: 'tampered', index, path: tile.name, message })
    } else {
      this.verified += 1
    }
    const type = typeOf(entry)
    if (type === null) {
      const message = `record ${index} is not a canonical ${RECORD_VERSION} record`
      this.report({ kind: 'tampered', index, path: tile.name, message })
    } else {
      this.types[type] = (this.types[type] ?? 0) + 1
    }
    this.#frontier.append(found)
    const mark = this.#marks.get(index + 1)
    if (mark !== undefined && !mark.equals(this.#frontier.root())) {
      const message = `the first ${index + 1} records are not those of a checkpoint that is known: another history`
      this.report({ kind: 'tampered', index: null, path: 'checkpoint', message })
    }
  }

  async #push(level: number, hash: Buffer): Promise<void> {
    const edge = (this.#edge[level] ??= [])
    edge.push(hash)
    if (edge.length < TILE_WIDTH) return
    this.#edge[level] = []
    const frontier = new Frontier()
    for (const child of edge) frontier.append(child)
    const covered = Math.ceil(this.#frontier.size / TILE_WIDTH ** (level + 1))
    await this.#compare({ level, index: covered - 1, hashes: edge })
    await this.#push(level + 1, frontier.root())
  }

  async #compare(tile: {
    readonly level: number
    readonly index: number
    readonly hashes: readonly Buffer[]
  }): Promise<void> {
    const name = tilePath(tile.level, tile.index, tile.hashes.length)
    const found = await this.#read(tile.level, tile.index, tile.hashes.length)
    const expected = Buffer.concat(tile.hashes)
    const isFull = tile.hashes.length === TILE_WIDTH
    const isSame = found !== null && (isFull ? found.equals(expected) : startsWith(found, expected))
    if (found === null || isSame) return
    const index = tile.index * TILE_WIDTH ** (tile.level + 1)
    const message = 'is not the tile of the records below it'
    this.report({ kind: 'tampered', index, path: name, message })
  }
}

const startsWith = (bytes: Buffer, start: Buffer): boolean =>
  bytes.length % HASH_BYTES === 0 && bytes.subarray(0, start.length).equals(start)

const hashAt = (tile: Buffer | null, position: number): Buffer | null =>
  tile === null ? null : tile.subarray(position * HASH_BYTES, (position + 1) * HASH_BYTES)

function typeOf(entry: Buffer): string | null {
  try {
    const value = parseCanonical(entry)
    const type = isCanonicalObject(value) ? value['type'] : null
    const version = isCanonicalObject(value) ? value['v'] : null
    return typeof type === 'string' && isRecordType(type) && version === RECORD_VERSION
      ? type
      : null
  } catch {
    return null
  }
}

/**
 * Verifies the log in `directory` (a log's own directory, or a copy of its public one) under the
 * public keys, which must come from elsewhere than the log.
 */
export async function verifyLog(
  directory: string,
  vkeys: readonly string[],
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const inner = path.join(directory, 'public')
  const isWhole = await stat(inner).then(
    (found) => found.isDirectory(),
    () => false,
  )
  const place = isWhole ? inner : directory
  const verifiers = vkeys.map(parseVkey)
  let checkpoint: Checkpoint
  try {
    checkpoint = openCheckpoint(await readFile(path.join(place, 'checkpoint'), 'utf8'), verifiers)
  } catch (error) {
    return unreadable(error)
  }
  const older = (options.known ?? []).map((note) => openCheckpoint(note, verifiers))
  const marks = new Map(older.map((known) => [known.size, known.root]))
  const verification = new Verification(place, checkpoint.size, marks)
  for (const known of older.filter(({ size }) => size > checkpoint.size)) {
    const message = `${known.size} records were signed, ${checkpoint.size} are here: the end was cut off, or this is an older copy`
    verification.report({ kind: 'tampered', index: checkpoint.size, path: 'checkpoint', message })
  }
  await verification.walk()
  const isComplete = !verification.problems.some(({ kind }) => kind === 'incomplete')
  if (isComplete && !verification.root().equals(checkpoint.root)) {
    const message = 'the root that was signed is not the root of these records'
    verification.report({ kind: 'tampered', index: null, path: 'checkpoint', message })
  }
  const unsigned = isWhole
    ? await verifyWal(path.join(directory, 'wal'), checkpoint.size, verification)
    : null
  return summarize(checkpoint, verification, unsigned, older)
}

function summarize(
  checkpoint: Checkpoint,
  verification: Verification,
  unsigned: number | null,
  older: readonly Checkpoint[],
): VerifyReport {
  const { problems, types, verified } = verification
  const isTampered = problems.some(({ kind }) => kind === 'tampered')
  return {
    exitCode: isTampered ? 1 : problems.length > 0 ? 2 : 0,
    origin: checkpoint.origin,
    size: checkpoint.size,
    root: checkpoint.root.toString('base64'),
    verified,
    types,
    unsigned,
    problems,
    notExcluded: whatIsLeft(older),
  }
}

/** What this directory cannot prove, however whole it is. */
function whatIsLeft(older: readonly Checkpoint[]): readonly string[] {
  const newest = Math.max(0, ...older.map(({ size }) => size))
  return [
    older.length === 0
      ? 'No witness cosigned this checkpoint and no older checkpoint was given: a log cut back to any earlier signed state would look the same.'
      : `No witness cosigned this checkpoint: a log cut back to a signed state of ${newest} records or more would look the same.`,
    'No anchor is kept off this host: who holds the signing key could have signed another history for others.',
    'A record proves that something was recorded, not that the decision was right, and not that nothing else happened on the host.',
  ]
}

function unreadable(error: unknown): VerifyReport {
  const isMissing = errnoOf(error) === 'ENOENT'
  const message = error instanceof Error ? error.message : String(error)
  if (!isMissing && !(error instanceof NoteError)) throw error
  return {
    exitCode: isMissing ? 2 : 1,
    origin: null,
    size: 0,
    root: null,
    verified: 0,
    types: {},
    unsigned: null,
    problems: [
      { kind: isMissing ? 'incomplete' : 'tampered', index: null, path: 'checkpoint', message },
    ],
    notExcluded: ['Without a signed checkpoint nothing at all is known of this log.'],
  }
}

/** The write-ahead log must agree with what is published; what is beyond is counted. */
async function verifyWal(
  directory: string,
  size: number,
  verification: Verification,
): Promise<number | null> {
  let names: string[]
  try {
    names = (await readdir(directory)).filter((name) => name.endsWith('.wal')).toSorted()
  } catch {
    return null
  }
  let next = 0
  for (const name of names) {
    try {
      // oxlint-disable-next-line no-await-in-loop
      const content = scanSegment(await readFile(path.join(directory, name)))
      next = content.next.index
    } catch (error) {
      // A segment may be retired while it is looked at; one that is there must be whole.
      if (errnoOf(error) === 'ENOENT') continue
      const message = error instanceof Error ? error.message : String(error)
      verification.report({ kind: 'tampered', index: null, path: `wal/${name}`, message })
      return null
    }
  }
  return Math.max(0, next - size)
}

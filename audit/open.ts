/**
 * Opens the log: takes the writer's lock, reads what is there, and goes on only if checkpoint,
 * tiles, write-ahead log and signer tell one story. Anything else is refused and left as it is.
 */
import { constants } from 'node:fs'
import { access, readFile } from 'node:fs/promises'
import path from 'node:path'
import { type Clock, systemClock } from './clock.ts'
import { AuditUnavailable, errnoOf } from './errors.ts'
import { type AuditLog, Log } from './log.ts'
import { EMPTY_ROOT, leafHash } from './merkle.ts'
import { NoteError, openCheckpoint, parseVkey, type Verifier } from './note.ts'
import { AuditRollback, Publisher } from './publisher.ts'
import type { RecordHead } from './record.ts'
import { SignerClient } from './signer-client.ts'
import { makeDirectory } from './store/durable.ts'
import { LogBusy, lockWriter, type WriterLock } from './store/lock.ts'
import { Reserve } from './store/reserve.ts'
import { type Recovered, Wal } from './store/wal.ts'
import { AuditCorrupt, TileTree } from './tiles.ts'

export interface AuditLogOptions {
  /** The log's own directory; the only one it writes to. */
  readonly directory: string
  /** The signer's unix socket. */
  readonly signerSocket: string
  /** The public key the signer wrote; its name is the log's origin. */
  readonly vkey: string
  /** What records say of this host. */
  readonly node: RecordHead['node']
  readonly clock?: Clock
  /** Bytes of a segment of the write-ahead log; 16 MiB when left out. */
  readonly segmentBytes?: number
  /** Bytes set aside for records of what ends; 4 MiB when left out. */
  readonly reserveBytes?: number
}

/** Where things are below the log's directory. */
export const logPaths = (
  directory: string,
): {
  readonly lock: string
  readonly reserve: string
  readonly wal: string
  readonly public: string
} => ({
  lock: path.join(directory, 'lock'),
  reserve: path.join(directory, 'reserve'),
  wal: path.join(directory, 'wal'),
  /** What may be served to anyone who may read records: checkpoint and tiles. */
  public: path.join(directory, 'public'),
})

/**
 * Opens the log, or makes a new one where neither directory nor signer knows of any records.
 * @throws AuditUnavailable when files or signer cannot be used
 * @throws AuditCorrupt when files are not as the log left them
 * @throws AuditRollback when the signer signed another history
 * @throws LogBusy when another process has it open
 */
export async function openAuditLog(options: AuditLogOptions): Promise<AuditLog> {
  const paths = logPaths(options.directory)
  let lock: WriterLock | null = null
  try {
    await makeDirectory(options.directory)
    await access(options.directory, constants.R_OK | constants.W_OK | constants.X_OK)
    lock = lockWriter(paths.lock)
    return await openLocked(options, lock)
  } catch (error) {
    lock?.release()
    throw refusal(options.directory, error)
  }
}

function refusal(directory: string, error: unknown): unknown {
  const isOwn =
    error instanceof AuditUnavailable ||
    error instanceof AuditCorrupt ||
    error instanceof AuditRollback ||
    error instanceof LogBusy
  if (isOwn) return error
  return new AuditUnavailable(directory, error)
}

async function openLocked(options: AuditLogOptions, lock: WriterLock): Promise<AuditLog> {
  const opened: { close(): unknown }[] = []
  try {
    return await openParts(options, lock, opened)
  } catch (error) {
    await Promise.allSettled(opened.map(async (part) => part.close()))
    throw error
  }
}

async function openParts(
  options: AuditLogOptions,
  lock: WriterLock,
  opened: { close(): unknown }[],
): Promise<AuditLog> {
  const paths = logPaths(options.directory)
  const verifier = parseVkey(options.vkey)
  const { reserve, entries: reserved } = await Reserve.open(paths.reserve, options.reserveBytes)
  opened.push(reserve)
  const tree = await loadTree(paths.public, verifier)
  const { wal, recovered } = await Wal.open(paths.wal, tree.size, options.segmentBytes)
  opened.push(wal)
  await checkWal(paths.wal, tree, recovered)
  const signer = new SignerClient(options.signerSocket)
  opened.push(signer)
  const publisher = new Publisher({
    tree,
    signer,
    verifier,
    directory: paths.public,
    published: (size) => wal.retire(size),
    failed: (error) => wal.poison(error),
  })
  publisher.add(recovered.entries.slice(tree.size - recovered.from))
  const clock = options.clock ?? systemClock()
  const { node } = options
  const log = new Log({ wal, reserve, publisher, lock, clock, node, signer, verifier })
  // The signer is asked before anything is written: an older copy of a log must not grow.
  await log.flush()
  await wal.cutTail(recovered.tornBytes)
  if (log.size === 0) {
    await log.append({ type: 'log.genesis', origin: verifier.name, vkey: verifier.vkey })
  }
  const lost = reserved.filter((entry) => !recovered.entries.some((known) => known.equals(entry)))
  await log.appendRecovered(lost)
  await reserve.clear()
  await sayRecovered(log, recovered, lost.length)
  await log.flush()
  return log
}

/** The tree under the checkpoint that was published last. */
async function loadTree(directory: string, verifier: Verifier): Promise<TileTree> {
  const read = (file: string): Promise<Buffer> => readFile(path.join(directory, file))
  const file = path.join(directory, 'checkpoint')
  let note: string
  try {
    note = await readFile(file, 'utf8')
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
    return TileTree.load(read, { size: 0, root: EMPTY_ROOT })
  }
  try {
    return await TileTree.load(read, openCheckpoint(note, [verifier]))
  } catch (error) {
    const isMissing = errnoOf(error) === 'ENOENT'
    if (!(error instanceof NoteError) && !isMissing) throw error
    const problem = error instanceof Error ? error.message : String(error)
    throw new AuditCorrupt(file, problem, { cause: error })
  }
}

/** The write-ahead log must meet the published tree, and agree with it where both hold a record. */
async function checkWal(directory: string, tree: TileTree, recovered: Recovered): Promise<void> {
  const next = recovered.from + recovered.entries.length
  if (recovered.from > tree.size || next < tree.size) {
    throw new AuditCorrupt(
      directory,
      `it holds records ${recovered.from} to ${next}, and ${tree.size} are published: some are missing`,
    )
  }
  for (const [position, entry] of recovered.entries.entries()) {
    const index = recovered.from + position
    if (index >= tree.size) return
    // oxlint-disable-next-line no-await-in-loop
    const leaf = await tree.hash({ from: index, to: index + 1 })
    if (!leaf.equals(leafHash(entry))) {
      throw new AuditCorrupt(directory, `record ${index} is not the one that was published`)
    }
  }
}

/** What recovery did is itself recorded: a tail that was cut off, records from the reserve. */
async function sayRecovered(
  log: AuditLog,
  found: Recovered,
  reserveRecords: number,
): Promise<void> {
  if (found.tornBytes === 0 && reserveRecords === 0) return
  await log.append({
    type: 'log.recovered',
    truncated_bytes: found.tornBytes,
    next_index: found.from + found.entries.length,
    reserve_records: reserveRecords,
  })
}

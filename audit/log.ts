/**
 * The audit log as the agent holds it: append, receipt, read. One process writes, and it needs no
 * privilege: the key is with the signer.
 *
 * An append resolves when the record is durable, and rejects with AUDIT_UNAVAILABLE otherwise; so
 * who awaits it before acting cannot act unrecorded. After any failed write the log stays closed
 * to appends until it is opened anew.
 */

import type { Clock } from './clock.ts'
import { AuditUnavailable } from './errors.ts'
import { leafHash } from './merkle.ts'
import type { Verifier } from './note.ts'
import { type Publisher, UNSIGNED_MAX } from './publisher.ts'
import { type RecordBody, type RecordHead, recordBytes } from './record.ts'
import type { SignerClient } from './signer-client.ts'
import type { WriterLock } from './store/lock.ts'
import type { Reserve } from './store/reserve.ts'
import type { Wal } from './store/wal.ts'

/** Limits of one group commit. */
const BATCH_RECORDS_MAX = 256
const BATCH_BYTES_MAX = 1_048_576
/** Records wait no longer than this for a signed checkpoint, even if nobody asks for a receipt. */
const PUBLISH_MS_MAX = 1000
const PUBLISH_RECORDS_MAX = 256
/** Appends that may wait for the disk at once; beyond it the log is not keeping up. */
const QUEUE_MAX = 16_384

/** Where a record went. */
export interface Appended {
  readonly index: number
  readonly leafHash: Buffer
  /** The record's canonical bytes: what the receipt is of. */
  readonly bytes: Buffer
}

/** A record as it is in the log. */
export interface Entry {
  readonly index: number
  readonly bytes: Buffer
}

export interface AuditLog {
  /** Makes a record durable. Rejects with AuditUnavailable, RecordTooLarge or NotCanonical. */
  append(body: RecordBody): Promise<Appended>
  /**
   * For what ends (exits, stops): as append, and where that fails into the reserve, whose records
   * get their index when the log is opened next; then it resolves with null.
   */
  appendReserve(body: RecordBody): Promise<Appended | null>
  /** The receipt of a record, a C2SP tlog-proof; signs a checkpoint where it needs one. */
  receipt(index: number): Promise<string>
  read(index: number): Promise<Entry>
  /** Records `from` (inclusive) to `to` (exclusive; the end when left out), in order. */
  scan(from: number, to?: number): AsyncGenerator<Entry>
  /** Records in the log. */
  readonly size: number
  readonly origin: string
  readonly vkey: string
  /** Why appends are refused; null while they are not. */
  readonly unavailable: AuditUnavailable | null
  /** Signs and publishes what is left, then closes the files. */
  close(): Promise<void>
}

interface Queued {
  readonly bytes: Buffer
  readonly resolve: (index: number) => void
  readonly reject: (error: unknown) => void
}

export interface LogParts {
  readonly wal: Wal
  readonly reserve: Reserve
  readonly publisher: Publisher
  readonly lock: WriterLock
  readonly clock: Clock
  readonly node: RecordHead['node']
  readonly verifier: Verifier
  readonly signer: SignerClient
}

export class Log implements AuditLog {
  readonly #parts: LogParts
  #queue: Queued[] = []
  #writing: Promise<void> | null = null
  #timer: NodeJS.Timeout | null = null
  #closed: AuditUnavailable | null = null

  constructor(parts: LogParts) {
    this.#parts = parts
  }

  get origin(): string {
    return this.#parts.verifier.name
  }

  get vkey(): string {
    return this.#parts.verifier.vkey
  }

  get size(): number {
    return this.#parts.publisher.size
  }

  get unavailable(): AuditUnavailable | null {
    return this.#closed ?? this.#parts.wal.failed
  }

  async append(body: RecordBody): Promise<Appended> {
    return this.#appendBytes(this.#bytesOf(body))
  }

  async appendReserve(body: RecordBody): Promise<Appended | null> {
    const bytes = this.#bytesOf(body)
    try {
      return await this.#appendBytes(bytes)
    } catch (error) {
      if (!(error instanceof AuditUnavailable)) throw error
      await this.#parts.reserve.append(bytes)
      return null
    }
  }

  /** Appends records that are bytes already: those that recovery found in the reserve. */
  async appendRecovered(entries: readonly Buffer[]): Promise<void> {
    await Promise.all(entries.map((bytes) => this.#appendBytes(bytes)))
  }

  #bytesOf(body: RecordBody): Buffer {
    const { clock, node } = this.#parts
    const head = {
      id: clock.uuid(),
      time: clock.now(),
      clock: { boot_id: clock.bootId, boottime_ns: String(clock.boottimeNs()) },
      node,
    }
    return recordBytes(head, body)
  }

  #refuseIfUnavailable(): void {
    const { publisher, wal } = this.#parts
    if (this.unavailable !== null) throw this.unavailable
    if (publisher.unsigned > UNSIGNED_MAX || this.#queue.length >= QUEUE_MAX) {
      const problem = `${publisher.unsigned} records wait for the signer, ${this.#queue.length} for the disk`
      throw new AuditUnavailable(wal.file, new Error(problem))
    }
  }

  async #appendBytes(bytes: Buffer): Promise<Appended> {
    this.#refuseIfUnavailable()
    const index = await new Promise<number>((resolve, reject) => {
      this.#queue.push({ bytes, resolve, reject })
      this.#writing ??= this.#write().finally(() => {
        this.#writing = null
      })
    })
    return { index, leafHash: leafHash(bytes), bytes }
  }

  /** Group commit: whatever waits goes into one batch, and while it is written more comes to wait. */
  async #write(): Promise<void> {
    const { publisher, wal } = this.#parts
    while (this.#queue.length > 0) {
      const batch = this.#takeBatch()
      const first = wal.nextIndex
      const entries = batch.map((queued) => queued.bytes)
      try {
        // oxlint-disable-next-line no-await-in-loop
        await wal.append(entries)
      } catch (error) {
        for (const queued of [...batch, ...this.#queue.splice(0)]) queued.reject(error)
        return
      }
      publisher.add(entries)
      for (const [position, queued] of batch.entries()) queued.resolve(first + position)
      this.#schedulePublish()
    }
  }

  #takeBatch(): Queued[] {
    let bytes = 0
    const full = this.#queue.findIndex((queued, position) => {
      bytes += queued.bytes.length
      return position > 0 && (position >= BATCH_RECORDS_MAX || bytes > BATCH_BYTES_MAX)
    })
    return this.#queue.splice(0, full === -1 ? this.#queue.length : full)
  }

  #schedulePublish(): void {
    const { publisher } = this.#parts
    if (publisher.unsigned >= PUBLISH_RECORDS_MAX) publisher.kick()
    this.#timer ??= setTimeout(() => {
      this.#timer = null
      publisher.kick()
    }, PUBLISH_MS_MAX)
  }

  receipt(index: number): Promise<string> {
    return this.#parts.publisher.receipt(index)
  }

  async read(index: number): Promise<Entry> {
    if (!Number.isSafeInteger(index) || index < 0 || index >= this.size) {
      throw new RangeError(`the log has no record ${index}`)
    }
    return { index, bytes: await this.#parts.publisher.entry(index) }
  }

  async *scan(from: number, to: number = this.size): AsyncGenerator<Entry> {
    for (let index = from; index < to; index += 1) {
      // oxlint-disable-next-line no-await-in-loop
      yield await this.read(index)
    }
  }

  /** Signs and publishes all there is. */
  async flush(): Promise<void> {
    await this.#writing
    await this.#parts.publisher.flush()
  }

  async close(): Promise<void> {
    const { wal, reserve, lock, signer } = this.#parts
    await this.#writing
    this.#closed = new AuditUnavailable(wal.file, new Error('the log was closed'))
    if (this.#timer !== null) clearTimeout(this.#timer)
    try {
      // A log that failed keeps its tail in the write-ahead log; the next start publishes it.
      if (wal.failed === null) await this.#parts.publisher.flush()
    } finally {
      signer.close()
      await wal.close()
      await reserve.close()
      lock.release()
    }
  }
}

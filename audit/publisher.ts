/**
 * From durable records to signed checkpoints: one cycle after the other takes what was appended,
 * has the tree signed, answers who waits for a receipt, and writes tiles and checkpoint.
 *
 * A receipt waits for the append and the signature, not for the tiles: those are derived, and made
 * again from the write-ahead log after a crash. Callers that come while a cycle runs share the
 * next one (group commit).
 */
import { rm } from 'node:fs/promises'
import path from 'node:path'
import { AuditUnavailable } from './errors.ts'
import { EMPTY_ROOT, inclusionRanges, verifyInclusion } from './merkle.ts'
import { openCheckpoint, type Verifier } from './note.ts'
import { formatReceipt } from './receipt.ts'
import { LEAVES_MAX } from './signer/protocol.ts'
import type { Signed, SignerClient } from './signer-client.ts'
import { makeDirectory, writeDurable } from './store/durable.ts'
import { AuditCorrupt, type TileFile, type TileTree } from './tiles.ts'

/** More unsigned records than this, and the log takes no more: they would not be worth much. */
export const UNSIGNED_MAX = 65_536

/** Checkpoints that may be signed and not yet published; then signing waits for the disk. */
const PUBLISH_BACKLOG_MAX = 8

/** The signer signed more than this log holds, or something else: an older copy, or a fork. */
export class AuditRollback extends Error {
  override readonly name = 'AuditRollback'
  readonly code = 'AUDIT_ROLLBACK'
}

interface Waiting {
  readonly index: number
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

export interface PublisherOptions {
  readonly tree: TileTree
  readonly signer: SignerClient
  readonly verifier: Verifier
  /** Directory that is served: checkpoint and tiles. */
  readonly directory: string
  /** Called when a checkpoint and all its tiles are durable. */
  readonly published: (size: number) => Promise<void>
  /** Called when tiles or checkpoint could not be written. */
  readonly failed: (error: unknown) => AuditUnavailable
}

export class Publisher {
  readonly #options: PublisherOptions
  readonly #tree: TileTree
  /** Durable entries that are not in the tree yet. */
  #entries: Buffer[] = []
  /** Leaves in the tree that are not signed yet. */
  #leaves: Buffer[] = []
  #signed: { readonly size: number; readonly root: Buffer; readonly note: string }
  #inStep = false
  #waiting: Waiting[] = []
  #running: Promise<void> | null = null
  /** Checkpoints on their way to the disk, in order. */
  #publishing: Promise<void> = Promise.resolve()
  #backlog = 0
  #publishFailure: AuditUnavailable | null = null

  constructor(options: PublisherOptions) {
    this.#options = options
    this.#tree = options.tree
    this.#signed = { size: options.tree.size, root: options.tree.root(), note: '' }
  }

  /** Records up to here are under a signed checkpoint. */
  get signedSize(): number {
    return this.#signed.size
  }

  get checkpoint(): string {
    return this.#signed.note
  }

  /** Records in all, signed or not. */
  get size(): number {
    return this.#tree.size + this.#entries.length
  }

  get unsigned(): number {
    return this.size - this.#signed.size
  }

  /** Takes entries that are durable. */
  add(entries: readonly Buffer[]): void {
    this.#entries.push(...entries)
  }

  /** The entry at `index`, checked against the tree as far as it is in it. */
  async entry(index: number): Promise<Buffer> {
    const waiting = this.#entries[index - this.#tree.size]
    return waiting ?? this.#tree.entry(index)
  }

  /** Waits until the record is under a signed checkpoint, and makes its receipt. */
  async receipt(index: number): Promise<string> {
    if (!Number.isSafeInteger(index) || index < 0 || index >= this.size) {
      throw new RangeError(`the log has no record ${index}`)
    }
    if (index >= this.#signed.size || this.#signed.note === '') await this.#cover(index)
    // A later cycle may replace the checkpoint while hashes are read: this receipt is for one.
    const { note, root, size } = this.#signed
    const hashes: Buffer[] = []
    for (const range of inclusionRanges(index, size)) {
      // oxlint-disable-next-line no-await-in-loop
      hashes.push(await this.#tree.hash(range))
    }
    const leaf = await this.#tree.hash({ from: index, to: index + 1 })
    if (!verifyInclusion({ index, size }, leaf, hashes, root)) {
      throw new AuditCorrupt(this.#options.directory, `the tiles do not prove record ${index}`)
    }
    return formatReceipt({ index, hashes, checkpoint: note })
  }

  /** Signs and publishes all there is. */
  async flush(): Promise<void> {
    if (this.#running !== null) await this.#running
    if (this.unsigned > 0 || this.#signed.note === '') await this.#cover(this.size - 1)
    await this.#running
    await this.#publishing
    if (this.#publishFailure !== null) throw this.#publishFailure
  }

  #cover(index: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ index, resolve, reject })
      this.kick()
    })
  }

  /** Starts a cycle if none runs. Errors go to who waits, and stay in the log's health. */
  kick(): void {
    this.#running ??= this.#run().finally(() => {
      this.#running = null
    })
  }

  async #run(): Promise<void> {
    try {
      do {
        // oxlint-disable-next-line no-await-in-loop
        await this.#sign()
        this.#answer()
        // oxlint-disable-next-line no-await-in-loop
        if (this.#backlog >= PUBLISH_BACKLOG_MAX) await this.#publishing
        this.#enqueue()
      } while (this.#waiting.length > 0 || this.#tree.size > this.#signed.size)
    } catch (error) {
      for (const waiting of this.#waiting.splice(0)) waiting.reject(error)
    }
  }

  #answer(): void {
    const covered = this.#waiting.filter((waiting) => waiting.index < this.#signed.size)
    this.#waiting = this.#waiting.filter((waiting) => waiting.index >= this.#signed.size)
    for (const waiting of covered) waiting.resolve()
  }

  /** Moves entries into the tree, at most so many that one request holds their leaves. */
  #integrate(): void {
    const room = Math.max(LEAVES_MAX - this.#leaves.length, 0)
    for (const entry of this.#entries.splice(0, room)) this.#leaves.push(this.#tree.append(entry))
  }

  async #sign(): Promise<void> {
    const { signer } = this.#options
    try {
      if (!this.#inStep) await this.#fallIntoStep(await signer.ask({ op: 'state' }))
      this.#integrate()
      this.#inStep = false
      const leaves = this.#leaves.slice(0, LEAVES_MAX)
      const request = { op: 'sign', old_size: this.#signed.size, leaves } as const
      await this.#accept(await signer.ask(request), leaves)
      this.#inStep = true
    } catch (error) {
      if (error instanceof AuditRollback || error instanceof AuditCorrupt) throw error
      throw new AuditUnavailable(signer.path, error)
    }
  }

  /**
   * After a start or a lost answer the signer may be ahead of what is known here. It must have
   * signed a size this log has, with the root this log has there.
   */
  async #fallIntoStep(state: Signed): Promise<void> {
    if (state.vkey !== this.#options.verifier.vkey) {
      throw new AuditRollback(`the signer holds ${state.vkey}, not ${this.#options.verifier.vkey}`)
    }
    if (state.size < this.#signed.size || state.size > this.size) {
      throw new AuditRollback(
        `the signer signed ${state.size} records; this log has ${this.size} and published ${this.#signed.size}: one of the two is an older copy`,
      )
    }
    while (this.#tree.size < state.size) {
      const [entry] = this.#entries.splice(0, 1)
      if (entry !== undefined) this.#leaves.push(this.#tree.append(entry))
    }
    const root = await this.#rootAt(state.size)
    if (!root.equals(state.root)) {
      throw new AuditRollback(`the first ${state.size} records are not those that were signed`)
    }
    this.#leaves.splice(0, state.size - this.#signed.size)
    this.#signed = { size: state.size, root, note: '' }
  }

  /** Takes what the signer answered, after computing the root a second way. */
  async #accept(signed: Signed, leaves: readonly Buffer[]): Promise<void> {
    const size = this.#signed.size + leaves.length
    const note = signed.note ?? ''
    const opened = openCheckpoint(note, [this.#options.verifier])
    if (opened.size !== size || !opened.root.equals(await this.#rootAt(size))) {
      throw new AuditRollback(`the signer signed another tree, of ${opened.size} records`)
    }
    this.#leaves.splice(0, leaves.length)
    this.#signed = { size, root: opened.root, note }
  }

  async #rootAt(size: number): Promise<Buffer> {
    return size === 0 ? EMPTY_ROOT : this.#tree.hash({ from: 0, to: size })
  }

  /** Takes what the signed checkpoint needs on disk, as it is now, and writes it in its turn. */
  #enqueue(): void {
    // Tiles are those of the whole tree: while some of it is unsigned, the next cycle is near.
    if (this.#tree.size !== this.#signed.size) return
    const files = this.#tree.files()
    const { note, size } = this.#signed
    this.#backlog += 1
    this.#publishing = this.#publishing
      .then(() =>
        this.#publishFailure === null ? this.#publish(files, { note, size }) : undefined,
      )
      .catch((error: unknown) => {
        this.#publishFailure = this.#options.failed(error)
      })
      .finally(() => {
        this.#backlog -= 1
      })
  }

  async #publish(
    files: readonly TileFile[],
    signed: { readonly note: string; readonly size: number },
  ): Promise<void> {
    const { directory } = this.#options
    await makeDirectory(directory)
    // All tiles before the checkpoint that needs them.
    await Promise.all(files.map((file) => writeTile(directory, file)))
    await writeDurable(path.join(directory, 'checkpoint'), signed.note)
    this.#tree.written(files)
    await this.#options.published(signed.size)
    const superfluous = files.map((file) => file.replaces).filter((name) => name !== null)
    await Promise.all(
      superfluous.map((name) => rm(path.join(directory, name), { recursive: true, force: true })),
    )
  }
}

async function writeTile(directory: string, file: TileFile): Promise<void> {
  const target = path.join(directory, file.path)
  await makeDirectory(path.dirname(target))
  await writeDurable(target, file.bytes)
}

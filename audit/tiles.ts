/**
 * The tree as tiles of 256 hashes (c2sp.org/tlog-tiles): paths, entry bundles, and the growing
 * right edge in memory. Full tiles never change; partial ones exist for each size that was signed.
 */
import { Frontier, foldNodes, HASH_BYTES, leafHash, perfectNodes, type Range } from './merkle.ts'
import type { Checkpoint } from './note.ts'

export const TILE_WIDTH = 256
/** An entry's length is a uint16 in its bundle. */
export const ENTRY_BYTES_MAX = 65_535
const TILE_CACHE_MAX = 64

/** Path below the log's prefix: `tile/<L>/<N>[.p/<W>]`, N in groups of three digits. */
export function tilePath(
  level: number | 'entries',
  index: number,
  width: number = TILE_WIDTH,
): string {
  let groups = String(index % 1000).padStart(3, '0')
  for (let rest = Math.floor(index / 1000); rest > 0; rest = Math.floor(rest / 1000)) {
    groups = `x${String(rest % 1000).padStart(3, '0')}/${groups}`
  }
  return `tile/${level}/${groups}${width < TILE_WIDTH ? `.p/${width}` : ''}`
}

/** Entries as their bundle: length in two bytes, big endian, then the bytes. */
export function encodeBundle(entries: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    entries.flatMap((entry) => {
      const length = Buffer.alloc(2)
      length.writeUInt16BE(entry.length)
      return [length, entry]
    }),
  )
}

/** The entries of a bundle; null when its lengths do not add up or there are more than 256. */
export function decodeBundle(bundle: Buffer): Buffer[] | null {
  const entries: Buffer[] = []
  let at = 0
  while (at < bundle.length) {
    if (at + 2 > bundle.length || entries.length === TILE_WIDTH) return null
    const end = at + 2 + bundle.readUInt16BE(at)
    if (end > bundle.length) return null
    entries.push(bundle.subarray(at + 2, end))
    at = end
  }
  return entries
}

/** The hashes of a tile; null when it is no whole number of hashes. */
export function decodeTile(tile: Buffer): Buffer[] | null {
  if (tile.length % HASH_BYTES !== 0 || tile.length > TILE_WIDTH * HASH_BYTES) return null
  return Array.from({ length: tile.length / HASH_BYTES }, (_, position) =>
    tile.subarray(position * HASH_BYTES, (position + 1) * HASH_BYTES),
  )
}

/** Width of the partial tile at a level for a tree of `size`; 0 when there is none. */
export const partialWidth = (level: number, size: number): number =>
  Math.floor(size / TILE_WIDTH ** level) % TILE_WIDTH

/** Reads a file below the log's prefix, whole. */
export type ReadFile = (path: string) => Promise<Buffer>

/** What is on disk is not what the log wrote: changed, missing or from another log. */
export class AuditCorrupt extends Error {
  override readonly name = 'AuditCorrupt'
  readonly code = 'AUDIT_CORRUPT'
  readonly path: string
  constructor(path: string, problem: string, options?: ErrorOptions) {
    super(`${path}: ${problem}`, options)
    this.path = path
  }
}

/** A file to write; full ones are immutable. */
export interface TileFile {
  readonly path: string
  readonly bytes: Buffer
  /** Directory of partial tiles that this full one makes superfluous. */
  readonly replaces: string | null
}

export class TileTree {
  readonly #read: ReadFile
  #size = 0
  #frontier = new Frontier()
  /** Hashes of the partial tile of each level. */
  #edge: Buffer[][] = [[]]
  /** Entries of the partial bundle. */
  #bundle: Buffer[] = []
  /** Full tiles and bundles that no call of `files` has handed out yet. */
  readonly #full = new Map<string, TileFile>()
  /** Full tiles that were handed out but perhaps are not on disk, and ones read back. */
  readonly #cache = new Map<string, Buffer[]>()

  constructor(read: ReadFile) {
    this.#read = read
  }

  get size(): number {
    return this.#size
  }

  root(): Buffer {
    return this.#frontier.root()
  }

  /** Appends an entry; returns its leaf hash. */
  append(entry: Uint8Array): Buffer {
    if (entry.length > ENTRY_BYTES_MAX) throw new RangeError('an entry is at most 65535 bytes')
    const leaf = leafHash(entry)
    this.#bundle.push(Buffer.from(entry))
    if (this.#bundle.length === TILE_WIDTH) {
      const index = Math.floor(this.size / TILE_WIDTH)
      this.#keep('entries', index, encodeBundle(this.#bundle))
      this.#bundle = []
    }
    this.#push(0, leaf)
    this.#frontier.append(leaf)
    this.#size += 1
    return leaf
  }

  #push(level: number, hash: Buffer): void {
    const edge = (this.#edge[level] ??= [])
    edge.push(hash)
    if (edge.length < TILE_WIDTH) return
    const index = Math.floor(this.size / TILE_WIDTH ** (level + 1))
    const path = this.#keep(level, index, Buffer.concat(edge))
    this.#remember(path, edge)
    this.#edge[level] = []
    this.#push(level + 1, foldPerfect(edge))
  }

  #keep(level: number | 'entries', index: number, bytes: Buffer): string {
    const path = tilePath(level, index)
    // A partial tile under the path of a full one could never be repaired: it is immutable.
    if (level !== 'entries' && bytes.length !== TILE_WIDTH * HASH_BYTES) {
      throw new RangeError(`${path} would not be a full tile`)
    }
    this.#full.set(path, { path, bytes, replaces: `${path}.p` })
    return path
  }

  #remember(path: string, hashes: Buffer[]): void {
    this.#cache.set(path, hashes)
    const oldest = this.#cache.keys().next().value
    // Tiles that are still to be written stay, since a read would not find them.
    if (this.#cache.size > TILE_CACHE_MAX && oldest !== undefined && !this.#full.has(oldest)) {
      this.#cache.delete(oldest)
    }
  }

  /** The files for a checkpoint of the present size, in the order to write them. */
  files(): readonly TileFile[] {
    const files = [...this.#full.values()]
    const width = this.#bundle.length
    if (width > 0) {
      const path = tilePath('entries', Math.floor(this.size / TILE_WIDTH), width)
      files.push({ path, bytes: encodeBundle(this.#bundle), replaces: null })
    }
    for (const [level, edge] of this.#edge.entries()) {
      if (edge.length === 0) continue
      const index = Math.floor(this.size / TILE_WIDTH ** (level + 1))
      const path = tilePath(level, index, edge.length)
      files.push({ path, bytes: Buffer.concat(edge), replaces: null })
    }
    return files
  }

  /** The files were written: the full ones among them are read from disk from now on. */
  written(files: readonly TileFile[]): void {
    for (const file of files) this.#full.delete(file.path)
  }

  /**
   * The entry at `index`, checked against the tree.
   * @throws AuditCorrupt
   */
  async entry(index: number): Promise<Buffer> {
    if (index < 0 || index >= this.size) throw new RangeError(`the tree has no entry ${index}`)
    const bundleIndex = Math.floor(index / TILE_WIDTH)
    const path = tilePath('entries', bundleIndex)
    const isRecent = bundleIndex === Math.floor(this.size / TILE_WIDTH)
    const bundle = isRecent
      ? this.#bundle
      : decodeBundle(this.#full.get(path)?.bytes ?? (await this.#read(path)))
    const entry = bundle?.[index % TILE_WIDTH]
    const leaf = await this.hash({ from: index, to: index + 1 })
    if (entry === undefined || !leaf.equals(leafHash(entry))) {
      throw new AuditCorrupt(path, `entry ${index} is not the one that was logged`)
    }
    return entry
  }

  /** The hash of a range of leaves within the tree. */
  async hash(range: Range): Promise<Buffer> {
    const hashes: Buffer[] = []
    for (const node of perfectNodes(range)) {
      // Tiles are few and mostly in memory: one after the other is quick enough.
      // oxlint-disable-next-line no-await-in-loop
      hashes.push(await this.#node(node.level, node.index))
    }
    return foldNodes(hashes)
  }

  async #node(level: number, index: number): Promise<Buffer> {
    const tileLevel = Math.floor(level / 8)
    const width = 2 ** (level % 8)
    const first = index * width
    const hashes = await this.#tile(tileLevel, Math.floor(first / TILE_WIDTH))
    const from = first % TILE_WIDTH
    const part = hashes.slice(from, from + width)
    if (part.length !== width) throw new RangeError(`node ${level}/${index} is not in the tree`)
    return foldPerfect(part)
  }

  async #tile(level: number, index: number): Promise<readonly Buffer[]> {
    if (index === Math.floor(this.size / TILE_WIDTH ** (level + 1))) return this.#edge[level] ?? []
    const path = tilePath(level, index)
    const cached = this.#cache.get(path)
    if (cached !== undefined) return cached
    const hashes = decodeTile(await this.#read(path))
    if (hashes?.length !== TILE_WIDTH) throw new AuditCorrupt(path, 'is not a full tile')
    this.#remember(path, hashes)
    return hashes
  }

  /**
   * Loads the right edge of the tree under a checkpoint and checks it against the root.
   * @throws AuditCorrupt
   */
  static async load(read: ReadFile, head: Pick<Checkpoint, 'size' | 'root'>): Promise<TileTree> {
    const tree = new TileTree(read)
    tree.#edge = []
    for (let level = 0; level === 0 || head.size >= TILE_WIDTH ** level; level += 1) {
      // oxlint-disable-next-line no-await-in-loop
      tree.#edge.push(await readPartial(read, level, head.size, decodeTile))
    }
    tree.#bundle = await readPartial(read, 'entries', head.size, decodeBundle)
    const leaves = tree.#edge[0] ?? []
    const matches = (entry: Buffer, position: number): boolean =>
      leaves[position]?.equals(leafHash(entry)) ?? false
    if (!tree.#bundle.every(matches)) {
      throw new AuditCorrupt('tile/entries', 'the newest entries are not those of their tile')
    }
    tree.#size = head.size
    const peaks: Buffer[] = []
    for (const node of perfectNodes({ from: 0, to: head.size })) {
      // oxlint-disable-next-line no-await-in-loop
      peaks.push(await tree.#node(node.level, node.index))
    }
    tree.#frontier = new Frontier(head.size, peaks)
    if (!tree.root().equals(head.root)) {
      throw new AuditCorrupt('tile', `the tiles are not those of the checkpoint of ${head.size}`)
    }
    return tree
  }
}

/** The hash of 2^n neighbours. */
function foldPerfect(hashes: readonly Buffer[]): Buffer {
  const frontier = new Frontier()
  for (const hash of hashes) frontier.append(hash)
  return frontier.root()
}

/** A partial tile or bundle, or the start of the full one that took its place. */
async function readPartial(
  read: ReadFile,
  level: number | 'entries',
  size: number,
  decode: (bytes: Buffer) => Buffer[] | null,
): Promise<Buffer[]> {
  const tileLevel = level === 'entries' ? 0 : level
  const width = partialWidth(tileLevel, size)
  if (width === 0) return []
  const path = tilePath(level, Math.floor(size / TILE_WIDTH ** (tileLevel + 1)), width)
  const items = decode(await read(path))
  if (items?.length !== width) throw new AuditCorrupt(path, `does not hold ${width} items`)
  return items
}

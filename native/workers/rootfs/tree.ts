/**
 * Layers merged into one tree, lowest first, as the OCI image specification (layer.md) says. Only
 * names, owners and where the bodies are; the bodies are read in a second pass, so what an upper
 * layer hides is never written.
 *
 * A layer's whiteouts hide what lower layers made, wherever in the archive they stand. So every name
 * carries the layer that made it, and a whiteout removes names of lower layers only.
 */
import { invalid, show, tooLarge } from './failure.ts'
import type { TarEntry } from './tar.ts'
import { keepXattrs, type Xattr } from './xattr.ts'

export interface Meta {
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtime: number
  readonly mtimeNanoseconds: number
  readonly xattrs: readonly Xattr[]
}

export interface Directory {
  readonly kind: 'directory'
  meta: Meta
  /** Layer whose archive spoke of the directory itself; -1 when none did. */
  metaLayer: number
  readonly children: Map<string, Name>
}

export interface File {
  readonly kind: 'file'
  readonly meta: Meta
  readonly size: number
  /** Where the body is: the layer and the number of the entry in its archive. */
  readonly layer: number
  readonly entry: number
}

export interface Symlink {
  readonly kind: 'symlink'
  readonly meta: Meta
  readonly link: string
}

export interface Special {
  readonly kind: 'character-device' | 'block-device' | 'fifo'
  readonly meta: Meta
  readonly deviceMajor: number
  readonly deviceMinor: number
}

export type Node = Directory | File | Symlink | Special

/** A name in a directory. Hard links are names of one node. */
interface Name {
  node: Node
  /** Last layer that made it or, for a directory, anything below it. */
  layer: number
}

const WHITEOUT = '.wh.'
const OPAQUE = '.wh..wh..opq'

const DEFAULT_META: Meta = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: 0,
  mtimeNanoseconds: 0,
  xattrs: [],
}

const newDirectory = (): Directory => ({
  kind: 'directory',
  meta: DEFAULT_META,
  metaLayer: -1,
  children: new Map(),
})

/** Removes what layers below `layer` made under `directory`. */
function prune(directory: Directory, layer: number): void {
  for (const name of directory.children.keys()) hide(directory, name, layer)
}

/** A directory that stays because this layer put something into it; its own owner is gone. */
function pruneKept(directory: Directory, layer: number): void {
  if (directory.metaLayer < layer) {
    directory.meta = DEFAULT_META
    directory.metaLayer = -1
  }
  prune(directory, layer)
}

/** Removes what layers below `layer` made under one name of a directory. */
function hide(parent: Directory, name: string, layer: number): void {
  const child = parent.children.get(name)
  if (child === undefined) return
  if (child.layer < layer) parent.children.delete(name)
  else if (child.node.kind === 'directory') pruneKept(child.node, layer)
}

export interface TreeLimits {
  /** Whether device nodes are acceptable. */
  readonly devices: boolean
  /** Entries of all archives, and names made by them: one deep path makes many directories. */
  readonly entries: number
}

export class Tree {
  readonly root: Directory = newDirectory()
  readonly #limits: TreeLimits
  #entries = 0
  #names = 0

  constructor(limits: TreeLimits) {
    this.#limits = limits
  }

  /**
   * Applies one entry of the archive of `layer`; layers come lowest first.
   * @param index number of the entry in its archive, to find its body again
   * @throws RootfsFailure when the entry makes no sense in the tree
   */
  apply(entry: TarEntry, layer: number, index: number): void {
    this.#entries += 1
    if (this.#entries > this.#limits.entries) throw this.#tooMany()
    const base = entry.path.at(-1)
    if (base === undefined) this.#describe(this.root, entry, layer)
    else if (base.startsWith(WHITEOUT)) this.#whiteout(entry, base, layer)
    else this.#add(entry, base, layer, index)
  }

  #tooMany(): Error {
    return tooLarge(`the image has more than ${this.#limits.entries} entries`)
  }

  #name(directory: Directory, base: string, name: Name): void {
    this.#names += 1
    if (this.#names > this.#limits.entries) throw this.#tooMany()
    directory.children.set(base, name)
  }

  #describe(directory: Directory, entry: TarEntry, layer: number): void {
    directory.meta = metaOf(entry)
    directory.metaLayer = layer
  }

  #whiteout(entry: TarEntry, base: string, layer: number): void {
    if (entry.type !== 'file' && entry.type !== 'hardlink') {
      throw invalid(`the whiteout ${show(entry.path.join('/'))} is a ${entry.type}`)
    }
    const parent = this.#find(entry.path.slice(0, -1))
    if (parent?.kind !== 'directory') return
    if (base === OPAQUE) prune(parent, layer)
    // Other names in `.wh..wh.` are the book-keeping of AUFS.
    else if (!base.startsWith(WHITEOUT + WHITEOUT)) {
      const hidden = base.slice(WHITEOUT.length)
      if (['', '.', '..'].includes(hidden)) {
        throw invalid(`the whiteout ${show(entry.path.join('/'))} names nothing`)
      }
      hide(parent, hidden, layer)
    }
  }

  #add(entry: TarEntry, base: string, layer: number, index: number): void {
    // The target is looked up before parents are made: a link cannot point into what it creates.
    const node = this.#nodeOf(entry, layer, index)
    const parent = this.#parent(entry.path, layer)
    const old = parent.children.get(base)
    if (old === undefined) this.#name(parent, base, { node, layer })
    else this.#replace(parent, old, { entry, base, node, layer })
  }

  #replace(
    parent: Directory,
    old: Name,
    next: { entry: TarEntry; base: string; node: Node; layer: number },
  ): void {
    const { entry, base, node, layer } = next
    if (node.kind === 'directory' && old.node.kind === 'directory') {
      this.#describe(old.node, entry, layer)
      old.layer = layer
      return
    }
    // Readers keep the first of two or the last; an archive that says both is refused.
    if (old.layer === layer) throw invalid(`${show(entry.path.join('/'))} comes twice in one layer`)
    parent.children.set(base, { node, layer })
  }

  #nodeOf(entry: TarEntry, layer: number, index: number): Node {
    const { type } = entry
    switch (type) {
      case 'directory':
        return { ...newDirectory(), meta: metaOf(entry), metaLayer: layer }
      case 'file':
        return { kind: type, meta: metaOf(entry), size: entry.size, layer, entry: index }
      case 'symlink':
        return { kind: type, meta: { ...metaOf(entry), mode: 0o777 }, link: entry.link }
      case 'hardlink':
        return this.#target(entry)
      case 'character-device':
      case 'block-device':
        if (!this.#limits.devices) {
          throw invalid(
            `${show(entry.path.join('/'))} is a device node, which only level vm permits`,
          )
        }
        return special(type, entry)
      case 'fifo':
        return special(type, entry)
      default:
        return type satisfies never
    }
  }

  #target(entry: TarEntry): Node {
    const target = this.#find(entry.target)
    const name = show(entry.path.join('/'))
    if (target === null) {
      throw invalid(
        `the hard link ${name} points to ${show(entry.target.join('/'))}, which is not there`,
      )
    }
    if (target.kind === 'directory') throw invalid(`the hard link ${name} points to a directory`)
    return target
  }

  /** The node at a path, never following a link. */
  #find(path: readonly string[]): Node | null {
    let node: Node = this.root
    for (const part of path) {
      const child: Name | undefined =
        node.kind === 'directory' ? node.children.get(part) : undefined
      if (child === undefined) return null
      node = child.node
    }
    return node
  }

  /**
   * The directory that holds `path`, made if need be. A symbolic link on the way is refused, never
   * followed and never replaced: both readings exist, and a tree should have one.
   */
  #parent(path: readonly string[], layer: number): Directory {
    let directory = this.root
    for (const part of path.slice(0, -1)) {
      let child = directory.children.get(part)
      if (child === undefined) {
        child = { node: newDirectory(), layer }
        this.#name(directory, part, child)
      }
      if (child.node.kind !== 'directory') {
        throw invalid(`${show(path.join('/'))} leads through ${show(part)}, a ${child.node.kind}`)
      }
      child.layer = layer
      directory = child.node
    }
    return directory
  }
}

const metaOf = (entry: TarEntry): Meta => ({
  mode: entry.mode,
  uid: entry.uid,
  gid: entry.gid,
  mtime: entry.mtime,
  mtimeNanoseconds: entry.mtimeNanoseconds,
  xattrs: keepXattrs(entry.xattrs),
})

const special = (kind: Special['kind'], entry: TarEntry): Special => ({
  kind,
  meta: metaOf(entry),
  deviceMajor: entry.deviceMajor,
  deviceMinor: entry.deviceMinor,
})

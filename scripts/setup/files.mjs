/** Small helpers for files: digests, replacing whole, comparing. */
import { createHash } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'

const PIECE = 1024 * 1024

/** SHA-256 of a file as `sha256:<hex>`, read in pieces. */
export function digestOf(file) {
  const hash = createHash('sha256')
  const piece = Buffer.alloc(PIECE)
  const fd = openSync(file, 'r')
  try {
    for (;;) {
      const got = readSync(fd, piece, 0, PIECE, null)
      if (got === 0) return `sha256:${hash.digest('hex')}`
      hash.update(piece.subarray(0, got))
    }
  } finally {
    closeSync(fd)
  }
}

export const describeFile = (file) => ({
  path: file,
  digest: digestOf(file),
  size: statSync(file).size,
})

/** Writes through a new file and a rename, so that a reader sees the old text or the new one. */
export function replaceText(file, text) {
  mkdirSync(path.dirname(file), { recursive: true })
  const fresh = `${file}.${process.pid}.new`
  writeFileSync(fresh, text)
  renameSync(fresh, file)
}

/**
 * Copies `from` over `to` by a rename, unless they are equal; a running program keeps its old file.
 * Returns whether it copied.
 */
export function replaceFile(from, to, mode) {
  if (
    existsSync(to) &&
    statSync(to).size === statSync(from).size &&
    digestOf(to) === digestOf(from)
  )
    return false
  mkdirSync(path.dirname(to), { recursive: true })
  const fresh = `${to}.${process.pid}.new`
  copyFileSync(from, fresh)
  chmodSync(fresh, mode)
  renameSync(fresh, to)
  return true
}

/** A JSON file's content, or null when it is missing or not JSON. */
export function readJson(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return null
  }
}

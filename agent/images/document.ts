/**
 * Small readers for the JSON documents of registries: strict JSON, then member by member. Members
 * nobody here knows are let pass, because the formats grow; members that differ from a known one in
 * case only are not, because Go's reader takes `Digest` for `digest` and would read another document.
 */
import { createHash } from 'node:crypto'

import { BadJsonText, type Canonical, parseJson } from '../../policy/canonical.ts'
import { type Digest, parseDigest } from '../../policy/index.ts'
import { ImageError } from './errors.ts'
import { JSON_DEPTH_MAX } from './limits.ts'

export type Members = { readonly [name: string]: Canonical }

export const invalid = (what: string): ImageError =>
  new ImageError(
    'IMAGE_MANIFEST_INVALID',
    `The registry sent a document that is not valid: ${what}.`,
  )

export const digestOfBytes = (bytes: Uint8Array): Digest =>
  parseDigest(`sha256:${createHash('sha256').update(bytes).digest('hex')}`)

const isMembers = (value: Canonical | undefined): value is Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** An object, whose members named in `known` cannot be mistaken for others. */
export function objectOf(
  value: Canonical | undefined,
  what: string,
  known: readonly string[],
): Members {
  if (!isMembers(value)) throw invalid(`${what} is not an object`)
  for (const name of Object.keys(value)) {
    const alike = known.find((one) => one.toLowerCase() === name.toLowerCase())
    if (alike !== undefined && alike !== name) {
      throw invalid(`${what} spells ${alike} in another way`)
    }
  }
  return value
}

/** Reads a whole document. @throws ImageError IMAGE_MANIFEST_INVALID */
export function parseDocument(
  bytes: Uint8Array,
  bytesMax: number,
  what: string,
  known: readonly string[],
): Members {
  try {
    return objectOf(parseJson(bytes, { bytesMax, depthMax: JSON_DEPTH_MAX }), what, known)
  } catch (error) {
    if (error instanceof BadJsonText) throw invalid(`${what} is not strict JSON, ${error.message}`)
    throw error
  }
}

export function stringOf(value: Canonical | undefined, what: string): string {
  if (typeof value === 'string') return value
  throw invalid(`${what} is not a string`)
}

export const optionalStringOf = (value: Canonical | undefined, what: string): string | null =>
  value === undefined || value === null ? null : stringOf(value, what)

export function listOf(
  value: Canonical | undefined,
  what: string,
  max: number,
): readonly Canonical[] {
  if (!Array.isArray(value)) throw invalid(`${what} is not an array`)
  if (value.length > max) {
    throw new ImageError('IMAGE_TOO_LARGE', `The image has more than ${max} ${what}.`)
  }
  return value
}

/** Strings, or nothing: Go writes null for an empty list. */
export function stringsOf(
  value: Canonical | undefined,
  what: string,
  max: number,
): readonly string[] {
  if (value === undefined || value === null) return []
  return listOf(value, what, max).map((item) => stringOf(item, `one of ${what}`))
}

export function sizeOf(value: Canonical | undefined, what: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw invalid(`${what} is not a size`)
}

/** Unvalidated digests end up in paths and URLs (CVE-2024-3727). */
export function digestOf(value: Canonical | undefined, what: string): Digest {
  try {
    return parseDigest(value)
  } catch {
    throw invalid(`${what} is not a SHA-256 digest`)
  }
}

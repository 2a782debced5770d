/** Small readers for documents written by people: exact members, closed lists, a path in errors. */
import type { Canonical } from './canonical.ts'

/** A place in a document, for error messages. */
export interface Where {
  readonly document: string
  readonly path: string
}

export const within = (where: Where, member: string): Where => ({
  document: where.document,
  path: where.path === '' ? member : `${where.path}.${member}`,
})

/** The document was refused, whole. The message names the member and what it must be. */
export class BadDocument extends Error {
  override readonly name = 'BadDocument'
  readonly code = 'BAD_DOCUMENT'
  /** Path of the member, as `rules.0.match`; empty for the document itself. */
  readonly path: string
  constructor(where: Where, rule: string) {
    super(`${where.document}: ${where.path === '' ? 'it' : where.path} ${rule}`)
    this.path = where.path
  }
}

/** An object of JSON, without a prototype. */
export type Members = { readonly [name: string]: Canonical }

type Reader<T> = (value: Canonical | undefined, where: Where) => T

const isObject = (value: Canonical | undefined): value is Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const isList = (value: Canonical | undefined): value is readonly Canonical[] => Array.isArray(value)

/**
 * The members of an object that has exactly the members `names`.
 * @throws BadDocument
 */
export function membersOf(
  value: Canonical | undefined,
  where: Where,
  names: readonly string[],
): Members {
  if (!isObject(value)) throw new BadDocument(where, 'must be an object')
  for (const name of names) {
    if (!Object.hasOwn(value, name)) throw new BadDocument(within(where, name), 'is missing')
  }
  if (Object.keys(value).length !== names.length) {
    throw new BadDocument(where, `must have no members but ${names.join(', ')}`)
  }
  return value
}

/**
 * The items of an array that holds 1 to `max`, each read by `read`. Empty lists are refused: in a
 * rule they would mean "nothing is required".
 * @throws BadDocument
 */
export function listOf<T>(
  value: Canonical | undefined,
  where: Where,
  max: number,
  read: Reader<T>,
): readonly T[] {
  if (!isList(value) || value.length < 1 || value.length > max) {
    throw new BadDocument(where, `must be an array of 1 to ${max} items`)
  }
  return value.map((item, index) => read(item, within(where, String(index))))
}

/** @throws BadDocument */
export function stringOf(value: Canonical | undefined, where: Where, pattern: RegExp): string {
  if (typeof value === 'string' && pattern.test(value)) return value
  throw new BadDocument(where, `must be a string of the form ${pattern.source}`)
}

/** @throws BadDocument */
export function oneOf<const T extends string>(
  value: Canonical | undefined,
  where: Where,
  choices: readonly T[],
): T {
  const found = choices.find((choice) => choice === value)
  if (found === undefined) throw new BadDocument(where, `must be ${choices.join(' or ')}`)
  return found
}

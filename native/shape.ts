/**
 * Readers for decoded JSON from the other side of a boundary: exact members, exact types, limits.
 * What does not fit is an error that names the place, never a value that is half right.
 */

/** A document whose shape is not the agreed one. `at` is the path of the member, as `exit.value`. */
export class BadShape extends TypeError {
  override readonly name = 'BadShape'
  readonly code = 'BAD_SHAPE'
  readonly at: string
  constructor(at: string, rule: string) {
    super(`${at} ${rule}`)
    this.at = at
  }
}

export type Members = Readonly<Record<string, unknown>>

const isMembers = (value: unknown): value is Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** An object with exactly these members. */
export function members(value: unknown, at: string, names: readonly string[]): Members {
  if (!isMembers(value)) throw new BadShape(at, 'must be an object')
  const found = Object.keys(value)
  const odd = found.find((name) => !names.includes(name)) ?? names.find((name) => !(name in value))
  if (odd !== undefined) {
    throw new BadShape(`${at}.${odd}`, found.includes(odd) ? 'is not known' : 'is missing')
  }
  return value
}

/** A string of at most `max` UTF-16 units. */
export function text(value: unknown, at: string, max = 1024): string {
  if (typeof value === 'string' && value.length <= max) return value
  throw new BadShape(at, `must be a string of at most ${max} characters`)
}

export function nullable<T>(value: unknown, read: (value: unknown) => T): T | null {
  return value === null ? null : read(value)
}

export function boolean(value: unknown, at: string): boolean {
  if (typeof value === 'boolean') return value
  throw new BadShape(at, 'must be true or false')
}

/** An integer in a closed range. */
export function integer(
  value: unknown,
  at: string,
  min = 0,
  max: number = Number.MAX_SAFE_INTEGER,
): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) {
    return value
  }
  throw new BadShape(at, `must be an integer, ${min} to ${max}`)
}

/** One of the given strings. */
export function oneOf<T extends string>(value: unknown, at: string, allowed: readonly T[]): T {
  const found = allowed.find((item) => item === value)
  if (found !== undefined) return found
  throw new BadShape(at, `must be one of ${allowed.join(', ')}`)
}

/** `sha256:` and 64 lower-case hex digits. */
export function digest(value: unknown, at: string): string {
  if (typeof value === 'string' && /^sha256:[0-9a-f]{64}$/u.test(value)) return value
  throw new BadShape(at, 'must be sha256: and 64 lower-case hex digits')
}

export function hex(value: unknown, at: string): string {
  if (typeof value === 'string' && /^(?:[0-9a-f]{2}){0,256}$/u.test(value)) return value
  throw new BadShape(at, 'must be lower-case hex')
}

/** A list of at most `max` items, each read by `read`. */
export function list<T>(
  value: unknown,
  at: string,
  max: number,
  read: (item: unknown, at: string) => T,
): readonly T[] {
  if (!Array.isArray(value) || value.length > max) {
    throw new BadShape(at, `must be a list of at most ${max}`)
  }
  return value.map((item: unknown, index) => read(item, `${at}[${index}]`))
}

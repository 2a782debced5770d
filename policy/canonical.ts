/**
 * Canonical JSON (docs/formats.md section 1): RFC 8785 restricted to integers, so that a document
 * has one spelling and its digest means one thing. Also a strict reader for JSON that others wrote.
 *
 * JSON.parse alone would keep the last of two members of one name, round large numbers and let lone
 * surrogates through: three ways for two programs to read one document differently.
 */

export const CANONICAL_DEPTH_MAX = 32
export const CANONICAL_BYTES_MAX = 2_097_152

/** What canonical JSON can hold. Larger integers travel as decimal strings, unknown is null. */
export type Canonical = null | boolean | number | string | readonly Canonical[] | CanonicalObject
export type CanonicalObject = { readonly [name: string]: Canonical }

/** Array.isArray alone does not tell the compiler that a readonly array is none. */
export const isCanonicalObject = (value: Canonical): value is CanonicalObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The value has no canonical form, or the text is not the canonical form of its value. */
export class NotCanonical extends TypeError {
  override readonly name = 'NotCanonical'
  readonly code = 'NOT_CANONICAL'
}

/** The text is not strict JSON within the limits. */
export class BadJsonText extends SyntaxError {
  override readonly name = 'BadJsonText'
  readonly code = 'BAD_JSON'
  /** UTF-16 offset into the text. */
  readonly offset: number
  constructor(offset: number, problem: string) {
    super(`${problem} at offset ${offset}`)
    this.offset = offset
  }
}

const surrogate = /\p{Surrogate}/u
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const encoder = new TextEncoder()

function canonicalString(text: string): string {
  if (surrogate.test(text)) throw new NotCanonical('a string has a lone surrogate')
  return JSON.stringify(text)
}

function canonicalNumber(number: number): string {
  if (!Number.isSafeInteger(number) || Object.is(number, -0)) {
    throw new NotCanonical(`${String(number)} is not an integer within 2^53-1, or is -0`)
  }
  return String(number)
}

function canonicalObject(value: object, depth: number): string {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) {
    throw new NotCanonical('only plain objects have a JSON form')
  }
  const members: [string, unknown][] = Object.entries(value)
  // Strings compare by UTF-16 code units, which is RFC 8785's order.
  const written = members
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${canonicalString(name)}:${canonicalAt(member, depth)}`)
  return `{${written.join(',')}}`
}

function canonicalAt(value: unknown, depth: number): string {
  if (value === null || typeof value === 'boolean') return String(value)
  if (typeof value === 'string') return canonicalString(value)
  if (typeof value === 'number') return canonicalNumber(value)
  if (typeof value !== 'object') throw new NotCanonical(`a ${typeof value} has no JSON form`)
  if (depth >= CANONICAL_DEPTH_MAX) {
    throw new NotCanonical(`nested deeper than ${CANONICAL_DEPTH_MAX}`)
  }
  if (!Array.isArray(value)) return canonicalObject(value, depth + 1)
  // Array.from, not map: map would step over the holes of a sparse array.
  return `[${Array.from(value, (item: unknown) => canonicalAt(item, depth + 1)).join(',')}]`
}

/**
 * The canonical text of a value, without a final newline.
 * @throws NotCanonical for floats, undefined, lone surrogates, class instances, too much depth
 */
export function canonicalJson(value: Canonical): string {
  return canonicalAt(value, 0)
}

/**
 * The canonical bytes of a value.
 * @throws NotCanonical
 */
export function canonicalBytes(value: Canonical): Uint8Array {
  return encoder.encode(canonicalAt(value, 0))
}

/**
 * Reads canonical JSON, or nothing: parses, writes again and compares.
 * @throws NotCanonical
 */
export function parseCanonical(
  input: string | Uint8Array,
  bytesMax: number = CANONICAL_BYTES_MAX,
): Canonical {
  const bytes = typeof input === 'string' ? encoder.encode(input) : input
  if (bytes.length > bytesMax) throw new NotCanonical(`longer than ${bytesMax} bytes`)
  let text: string
  let value: Canonical
  try {
    text = typeof input === 'string' ? input : decoder.decode(input)
    value = JSON.parse(text)
  } catch (cause) {
    throw new NotCanonical('not JSON in UTF-8', { cause })
  }
  if (canonicalAt(value, 0) !== text) {
    throw new NotCanonical('not the canonical form: order, space, escapes, numbers or a name twice')
  }
  return value
}

/** What a reader of foreign JSON puts up with. */
export interface JsonLimits {
  /** Bytes of UTF-8. */
  readonly bytesMax: number
  /** Arrays and objects open at once. */
  readonly depthMax: number
}

const blank = /[ \t\n\r]*/uy
const scalar =
  /"(?:[ !#-[\]-\u{10ffff}]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null/uy

class Reader {
  readonly #text: string
  readonly #depthMax: number
  #at = 0

  constructor(text: string, depthMax: number) {
    this.#text = text
    this.#depthMax = depthMax
  }

  document(): Canonical {
    const value = this.#value(0)
    this.#skipBlank()
    if (this.#at !== this.#text.length) throw new BadJsonText(this.#at, 'text after the document')
    return value
  }

  #skipBlank(): void {
    blank.lastIndex = this.#at
    this.#at += blank.exec(this.#text)?.[0].length ?? 0
  }

  #take(token: string): boolean {
    this.#skipBlank()
    const found = this.#text.startsWith(token, this.#at)
    if (found) this.#at += token.length
    return found
  }

  #expect(token: string): void {
    if (!this.#take(token)) throw new BadJsonText(this.#at, `no ${token}`)
  }

  #value(depth: number): Canonical {
    if (this.#take('{')) return this.#object(depth + 1)
    if (this.#take('[')) return this.#array(depth + 1)
    return this.#scalar()
  }

  #scalar(): Canonical {
    this.#skipBlank()
    scalar.lastIndex = this.#at
    const found = scalar.exec(this.#text)?.[0]
    if (found === undefined) throw new BadJsonText(this.#at, 'no JSON value')
    const value: Canonical = JSON.parse(found)
    if (typeof value === 'string' && surrogate.test(value)) {
      throw new BadJsonText(this.#at, 'lone surrogate')
    }
    if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
      throw new BadJsonText(this.#at, 'integer beyond 2^53-1')
    }
    if (value === Infinity || value === -Infinity) {
      throw new BadJsonText(this.#at, 'number too large')
    }
    this.#at += found.length
    return value
  }

  #enter(depth: number): void {
    if (depth > this.#depthMax) throw new BadJsonText(this.#at, `deeper than ${this.#depthMax}`)
  }

  #array(depth: number): Canonical {
    this.#enter(depth)
    const items: Canonical[] = []
    if (this.#take(']')) return items
    do items.push(this.#value(depth))
    while (this.#take(','))
    this.#expect(']')
    return items
  }

  #object(depth: number): Canonical {
    this.#enter(depth)
    // Without a prototype, so that a member called __proto__ is a member and nothing else.
    const members: Record<string, Canonical> = Object.create(null)
    if (this.#take('}')) return members
    do {
      this.#skipBlank()
      const start = this.#at
      const name = this.#scalar()
      if (typeof name !== 'string') throw new BadJsonText(start, 'a member name is not a string')
      if (Object.hasOwn(members, name)) throw new BadJsonText(start, 'a member name twice')
      this.#expect(':')
      members[name] = this.#value(depth)
    } while (this.#take(','))
    this.#expect('}')
    return members
  }
}

/**
 * Reads JSON that others wrote, strictly: RFC 8259 and nothing more; no member name twice, no lone
 * surrogate, no integer that would be rounded. Objects in the result have no prototype.
 * @throws BadJsonText
 */
export function parseJson(input: string | Uint8Array, limits: JsonLimits): Canonical {
  const bytes = typeof input === 'string' ? encoder.encode(input) : input
  if (bytes.length > limits.bytesMax) {
    throw new BadJsonText(0, `longer than ${limits.bytesMax} bytes`)
  }
  if (typeof input === 'string') return new Reader(input, limits.depthMax).document()
  let text: string
  try {
    text = decoder.decode(input)
  } catch (cause) {
    throw Object.assign(new BadJsonText(0, 'not UTF-8'), { cause })
  }
  return new Reader(text, limits.depthMax).document()
}

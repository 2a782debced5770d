/** WWW-Authenticate, by the grammar of RFC 9110 section 11.6.1: several challenges, quoted strings. */

export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  readonly scheme: string
  /** By lower-case name. */
  readonly parameters: ReadonlyMap<string, string>
}

const HEADER_CHARACTERS_MAX = 8192
const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const blanks = /[ \t,]*/uy
const schemeStart = new RegExp(`(${token})(?= |\\t|,|$)[ \\t]*(?!=)`, 'uy')
const parameter = new RegExp(
  `(${token})[ \\t]*=[ \\t]*(?:"((?:[^"\\\\]|\\\\.)*)"|(${token}))`,
  'uy',
)

function match(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at
  return pattern.exec(text)
}

/** One element at `at`: a challenge's start or a parameter of the last one. Its length, or 0. */
function readElement(header: string, at: number, challenges: Builder[]): number {
  const pair = match(parameter, header, at)
  const last = challenges.at(-1)
  if (pair !== null && last !== undefined) {
    const [whole, name = '', quoted = '', plain] = pair
    last.parameters.set(name.toLowerCase(), plain ?? quoted.replace(/\\(.)/gu, '$1'))
    return whole.length
  }
  const start = pair === null ? match(schemeStart, header, at) : null
  if (start === null) return 0
  challenges.push({ scheme: start[1]?.toLowerCase() ?? '', parameters: new Map() })
  return start[0].length
}

interface Builder {
  readonly scheme: string
  readonly parameters: Map<string, string>
}

/** The challenges of a header, in order. What cannot be read ends the list: it is not guessed at. */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: Builder[] = []
  if (header.length > HEADER_CHARACTERS_MAX) return challenges
  for (let at = 0; at < header.length; ) {
    at += match(blanks, header, at)?.[0].length ?? 0
    const length = readElement(header, at, challenges)
    if (length === 0) break
    at += length
  }
  return challenges
}

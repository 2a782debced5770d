/**
 * Patterns over fully expanded image names (`docker.io/library/busybox`). Matched component by
 * component by our own few lines, always over the whole name: regular expressions that their
 * authors forget to anchor have let foreign repositories in elsewhere.
 */
import type { Canonical } from './canonical.ts'
import { BadDocument, type Where } from './strict-members.ts'

/**
 * `*` stands for any characters inside one component after the registry, `**` as the last component
 * for one or more components. The registry is literal, except that `**` alone is every image.
 */
export interface Glob {
  readonly text: string
}

const GLOB_CHARACTERS_MAX = 512
const registry = /^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[1-9][0-9]{0,4})?$/u
const component = /^[a-z0-9*](?:[a-z0-9*._-]*[a-z0-9*])?$/u

const isGlob = (text: string): boolean => {
  if (text === '**') return true
  const [host = '', ...path] = text.split('/')
  const last = path.at(-1)
  const named = last === '**' ? path.slice(0, -1) : path
  return (
    registry.test(host) &&
    path.length > 0 &&
    named.every((part) => component.test(part) && !part.includes('**'))
  )
}

/** @throws BadDocument */
export function parseGlob(value: Canonical | undefined, where: Where): Glob {
  if (typeof value === 'string' && value.length <= GLOB_CHARACTERS_MAX && isGlob(value)) {
    return { text: value }
  }
  throw new BadDocument(
    where,
    'must be registry/path in lower case, with * inside a component or ** as the last one, or ** alone',
  )
}

/** Whether `name`, registry and repository joined by a slash, is one of those the glob means. */
export function matchesGlob(glob: Glob, name: string): boolean {
  const wanted = glob.text.split('/')
  const given = name.split('/')
  if (wanted.at(-1) === '**') {
    const fixed = wanted.slice(0, -1)
    return (
      given.length > fixed.length && fixed.every((part, index) => matchesPart(part, given[index]))
    )
  }
  return (
    given.length === wanted.length && wanted.every((part, index) => matchesPart(part, given[index]))
  )
}

/** Pieces between stars must follow each other; the first and last are tied to the ends. */
function matchesPart(pattern: string, part: string | undefined): boolean {
  if (part === undefined || part === '') return false
  const pieces = pattern.split('*')
  const first = pieces[0] ?? ''
  const last = pieces.at(-1) ?? ''
  if (pieces.length === 1) return part === pattern
  if (!part.startsWith(first) || !part.endsWith(last)) return false
  let at = first.length
  for (const piece of pieces.slice(1, -1)) {
    const found = part.indexOf(piece, at)
    if (found < 0) return false
    at = found + piece.length
  }
  return at <= part.length - last.length
}

/** What people call a pod, and what they note about it. Nothing here is part of any decision. */
import { BadNoun, type Branded } from './brand.ts'

/**
 * A pod's name, unique among its tenant's pods that have not ended. It begins with a letter, and ids with a digit, so
 * that neither is ever taken for the other.
 */
export type PodName = Branded<string, 'PodName'>
const podName = /^[a-zA-Z][a-zA-Z0-9_.-]{0,62}$/u

export const isPodName = (input: unknown): input is PodName =>
  typeof input === 'string' && podName.test(input)

/** @throws BadNoun */
export function parsePodName(input: unknown): PodName {
  if (isPodName(input)) return input
  throw new BadNoun('name', 'must be 1 to 63 of a-z, A-Z, 0-9, _, . and -, and begin with a letter')
}

export const NOTES_MAX = 32
export const LABEL_CHARACTERS_MAX = 255
export const ANNOTATION_CHARACTERS_MAX = 4096
const key = /^[a-zA-Z0-9](?:[a-zA-Z0-9_./-]{0,61}[a-zA-Z0-9])?$/u

/** Keys and values, to be found by (labels) or to be read (annotations); sorted by key. */
export type Notes = Branded<Readonly<Record<string, string>>, 'Notes'>

function notesOf(noun: string, input: object, charactersMax: number): Notes {
  const entries = Object.entries(input)
  const isNotes = (notes: object): notes is Notes =>
    entries.length <= NOTES_MAX &&
    Object.entries(notes).every(
      ([name, value]: [string, unknown]) =>
        key.test(name) &&
        typeof value === 'string' &&
        value.length <= charactersMax &&
        !/[\p{Cc}\p{Surrogate}]/u.test(value),
    )
  const sorted = Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)))
  if (isNotes(sorted)) return sorted
  throw new BadNoun(
    noun,
    `must be at most ${NOTES_MAX}, with keys of up to 63 letters, digits, _, ., / and -, and values of up to ${charactersMax} characters without control characters`,
  )
}

/** @throws BadNoun */
export const parseLabels = (input: object): Notes => notesOf('labels', input, LABEL_CHARACTERS_MAX)

/** @throws BadNoun */
export const parseAnnotations = (input: object): Notes =>
  notesOf('annotations', input, ANNOTATION_CHARACTERS_MAX)

/** Digests, in the one form that all documents use. */
import { BadNoun, type Branded } from './brand.ts'

/**
 * `sha256:` and 64 lower-case hex digits. Nothing else is a digest here: an unvalidated digest
 * string ends up in paths and URLs (CVE-2024-3727).
 */
export type Digest = Branded<string, 'Digest'>
const digest = /^sha256:[0-9a-f]{64}$/u

const isDigest = (input: unknown): input is Digest =>
  typeof input === 'string' && digest.test(input)

/** @throws BadNoun */
export function parseDigest(input: unknown): Digest {
  if (isDigest(input)) return input
  throw new BadNoun('digest', 'must be sha256: and 64 lower-case hex digits')
}

/** A path in a pod that somebody names for a copy. It is resolved in the pod, by a process that has nothing beyond it. */
import { BadNoun, type Branded } from './brand.ts'
import { PATH_BYTES_MAX } from './process.ts'

export type PodPath = Branded<string, 'PodPath'>

const encoder = new TextEncoder()

const isPodPath = (input: unknown): input is PodPath =>
  typeof input === 'string' &&
  input.startsWith('/') &&
  // NUL ends a C string early; a lone surrogate has no UTF-8 bytes.
  !/\0|\p{Surrogate}/u.test(input) &&
  encoder.encode(input).length <= PATH_BYTES_MAX

/** @throws BadNoun */
export function parsePodPath(input: unknown): PodPath {
  if (isPodPath(input)) return input
  throw new BadNoun(
    'path',
    `must be an absolute path of at most ${PATH_BYTES_MAX} bytes without NUL`,
  )
}

/** Paths of the host that root lists for tenants, and places below what is mounted. native/ticket has the same bounds. */
import { BadNoun, type Branded } from './brand.ts'

/** As in native/ticket/src/mounts.rs. */
const SUB_PATH_BYTES_MAX = 512
const NAME_BYTES_MAX = 255

/** By which root's list has it: never a path. */
export type HostPathName = Branded<string, 'HostPathName'>
const hostPathName = /^[a-z0-9][a-z0-9-]{0,62}$/u

const isHostPathName = (input: unknown): input is HostPathName =>
  typeof input === 'string' && hostPathName.test(input)

/** @throws BadNoun */
export function parseHostPathName(input: unknown): HostPathName {
  if (isHostPathName(input)) return input
  throw new BadNoun('host path', 'must be 1 to 63 of a-z, 0-9 and -, and not begin with -')
}

/** Names with one slash between them, none of which leads up or out. No link is followed there. */
export type SubPath = Branded<string, 'SubPath'>

const bytesOf = (text: string): number => Buffer.byteLength(text, 'utf8')

const isSubPath = (input: unknown): input is SubPath =>
  typeof input === 'string' &&
  !/\0|\p{Surrogate}/u.test(input) &&
  bytesOf(input) <= SUB_PATH_BYTES_MAX &&
  input
    .split('/')
    .every((name) => !['', '.', '..'].includes(name) && bytesOf(name) <= NAME_BYTES_MAX)

/** @throws BadNoun */
export function parseSubPath(input: unknown): SubPath {
  if (isSubPath(input)) return input
  throw new BadNoun(
    'sub-path',
    `must be names with one slash between them, without . and .., of ${SUB_PATH_BYTES_MAX} bytes at most`,
  )
}

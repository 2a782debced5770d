/**
 * What a process is started with: arguments, environment, directory, user. Images and callers are
 * both strangers, so both go through here.
 *
 * The limits keep the whole spec under its 512 KiB: JSON may need six bytes for one of these.
 */
import { BadNoun, type Branded } from './brand.ts'

export const ARGUMENTS_MAX = 256
export const ARGUMENTS_BYTES_MAX = 32_768
export const ENVIRONMENT_ENTRIES_MAX = 256
export const ENVIRONMENT_BYTES_MAX = 32_768
export const PATH_BYTES_MAX = 4095
/** As in native/guest-init/src/users.rs: what that refuses must not be recorded as a launch first. */
const ID_MAX = 2_147_483_647

const encoder = new TextEncoder()
const bytesOf = (text: string): number => encoder.encode(text).length
/** NUL ends a C string early; a lone surrogate has no UTF-8 bytes. */
const unsafe = /\0|\p{Surrogate}/u

/** Program and arguments, at least one; none holds NUL. */
export type Arguments = Branded<readonly string[], 'Arguments'>

const isArguments = (input: unknown): input is Arguments =>
  Array.isArray(input) &&
  input.length >= 1 &&
  input.length <= ARGUMENTS_MAX &&
  input.every((item: unknown) => typeof item === 'string' && !unsafe.test(item)) &&
  input[0] !== '' &&
  bytesOf(input.join('\0')) < ARGUMENTS_BYTES_MAX

/** @throws BadNoun */
export function parseArguments(input: unknown): Arguments {
  if (isArguments(input)) return input
  throw new BadNoun(
    'args',
    `must be 1 to ${ARGUMENTS_MAX} strings without NUL, together under ${ARGUMENTS_BYTES_MAX} bytes, the first not empty`,
  )
}

/** `KEY=value` entries with different keys. */
export type Environment = Branded<readonly string[], 'Environment'>
const environmentEntry = /^[^=\0\p{Surrogate}]+=[^\0\p{Surrogate}]*$/u

/** The key of a `KEY=value` entry. */
export const environmentKey = (entry: string): string => entry.slice(0, entry.indexOf('='))

const isEnvironment = (input: unknown): input is Environment =>
  Array.isArray(input) &&
  input.length <= ENVIRONMENT_ENTRIES_MAX &&
  input.every((item: unknown) => typeof item === 'string' && environmentEntry.test(item)) &&
  new Set(input.map((item: unknown) => environmentKey(String(item)))).size === input.length &&
  bytesOf(input.join('\0')) < ENVIRONMENT_BYTES_MAX

/** @throws BadNoun */
export function parseEnvironment(input: unknown): Environment {
  if (isEnvironment(input)) return input
  throw new BadNoun(
    'env',
    `must be at most ${ENVIRONMENT_ENTRIES_MAX} strings KEY=value with different keys, without NUL, together under ${ENVIRONMENT_BYTES_MAX} bytes`,
  )
}

/** An absolute path in the pod. It is resolved in the guest, inside the image's root. */
export type WorkingDirectory = Branded<string, 'WorkingDirectory'>

const isWorkingDirectory = (input: unknown): input is WorkingDirectory =>
  typeof input === 'string' &&
  input.startsWith('/') &&
  !unsafe.test(input) &&
  bytesOf(input) <= PATH_BYTES_MAX

/** @throws BadNoun */
export function parseWorkingDirectory(input: unknown): WorkingDirectory {
  if (isWorkingDirectory(input)) return input
  throw new BadNoun(
    'cwd',
    `must be an absolute path of at most ${PATH_BYTES_MAX} bytes without NUL`,
  )
}

/**
 * User of an image-spec config: '' (uid 0), `uid`, `uid:gid`, `name`, `name:group` and mixtures.
 * Names are looked up in the guest. What begins with a digit is a number and must fit: numbers that
 * overflowed were once looked up as names, found in nobody's passwd, and became root
 * (CVE-2024-40635).
 */
export type User = Branded<string, 'User'>
const userPart = /^(?:0|[1-9][0-9]{0,9}|[A-Za-z_][A-Za-z0-9_.-]{0,31})$/u

const isUserPart = (part: string): boolean =>
  userPart.test(part) && (!/^[0-9]/u.test(part) || Number(part) <= ID_MAX)

const isUser = (input: unknown): input is User =>
  typeof input === 'string' &&
  (input === '' || (input.split(':').length <= 2 && input.split(':').every(isUserPart)))

/** @throws BadNoun */
export function parseUser(input: unknown): User {
  if (isUser(input)) return input
  throw new BadNoun(
    'user',
    `must be empty, or a name or a number up to ${ID_MAX}, and may name a group the same way after a colon`,
  )
}

/** Resource limits of a pod's process (getrlimit(2)), in the words of a request. */
import type { ResourceLimit } from '../plan.ts'
import { BadNoun } from './brand.ts'

/** Names as in native/ticket/src/app.rs, which has them all. */
const RESOURCES: ReadonlySet<string> = new Set(
  (
    'cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio ' +
    'rttime'
  ).split(' '),
)
/** RLIM_INFINITY; as the spec writes what is beyond 2^53. */
const UNLIMITED = '18446744073709551615'
/** The guest kernel's fs.nr_open: it lets nobody have more. */
export const OPEN_FILES_MAX = 1_048_576
const amount = /^(?:0|[1-9][0-9]{0,14}|unlimited)$/u

const valueOf = (text: string): number | string => (text === 'unlimited' ? UNLIMITED : Number(text))

const isAbove = (soft: number | string, hard: number | string): boolean =>
  hard !== UNLIMITED && (soft === UNLIMITED || Number(soft) > Number(hard))

const wrong = (): BadNoun =>
  new BadNoun(
    'ulimit',
    `must be NAME=SOFT or NAME=SOFT:HARD with a name of ${[...RESOURCES].join(', ')}, whole numbers or unlimited, soft at most hard, and nofile at most ${OPEN_FILES_MAX}`,
  )

/** Soft and hard. @throws BadNoun */
function amountsOf(text: string): readonly [number | string, number | string] {
  const [soft = '', hard = soft, ...more] = text.split(':')
  if (more.length > 0 || !amount.test(soft) || !amount.test(hard)) throw wrong()
  return [valueOf(soft), valueOf(hard)]
}

/** `nofile=1024:4096`, `core=0`, `memlock=unlimited`: soft, and hard where it is another. @throws BadNoun */
function parseUlimit(input: string): ResourceLimit {
  const [name = '', values = '', ...rest] = input.split('=')
  if (rest.length > 0 || !RESOURCES.has(name)) throw wrong()
  const [soft, hard] = amountsOf(values)
  const isTooMany = name === 'nofile' && isAbove(hard, OPEN_FILES_MAX)
  if (isTooMany || isAbove(soft, hard)) throw wrong()
  return { type: `RLIMIT_${name.toUpperCase()}`, soft, hard }
}

/** @throws BadNoun also when one is there twice */
export function parseUlimits(input: readonly string[]): readonly ResourceLimit[] {
  const limits = input.map(parseUlimit)
  if (new Set(limits.map(({ type }) => type)).size === limits.length) return limits
  throw new BadNoun('ulimits', 'must each be there once')
}

/** As in native/guest-init/src/users.rs, and the spec's most of them. */
const ID_MAX = 2_147_483_647
export const GROUPS_MAX = 64

/** @throws BadNoun */
export function parseGroups(input: readonly number[]): readonly number[] {
  const isGid = (gid: number): boolean => Number.isInteger(gid) && gid >= 0 && gid <= ID_MAX
  const isSet = new Set(input).size === input.length && input.length <= GROUPS_MAX
  if (isSet && input.every(isGid)) return input
  throw new BadNoun('groups', `must be at most ${GROUPS_MAX} different numbers up to ${ID_MAX}`)
}

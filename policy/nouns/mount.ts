/** What is mounted in a pod beside its image, in the words of a request. */
import { BadNoun, type Branded } from './brand.ts'
import { type HostPathName, parseHostPathName, parseSubPath, type SubPath } from './host-path.ts'
import { parseVolumeName, type VolumeName } from './volume.ts'

/** As in native/ticket/src/mounts.rs, which holds the same rules. */
export const MOUNTS_MAX = 32
const PATH_BYTES_MAX = 4095
const NAME_BYTES_MAX = 255
/** A page, and as much as the largest pod has. */
const TMPFS_BYTES_MIN = 4096
const TMPFS_BYTES_MAX = 16_384 * 2 ** 20
/** The kernel's file systems: what is mounted there is masked and protected, and nobody's to change. */
const KERNEL_PLACES = ['/proc', '/sys', '/dev']
const SHARED_MEMORY = '/dev/shm'
const TEMPORARY_MODE = 0o1777
const SHARED_MEMORY_MODE = 0o1777

/** Where in a pod: absolute, without `.`, `..`, empty names or a slash at the end. It is resolved inside, following no link. */
export type MountPath = Branded<string, 'MountPath'>

const bytesOf = (text: string): number => Buffer.byteLength(text, 'utf8')
const isName = (name: string): boolean =>
  !['', '.', '..'].includes(name) && bytesOf(name) <= NAME_BYTES_MAX

/** Whether `path` is `place`, or below it. */
export const isWithin = (path: string, place: string): boolean =>
  path === place || path.startsWith(`${place}/`)

function isMountPath(input: unknown): input is MountPath {
  if (typeof input !== 'string' || /\0|\p{Surrogate}/u.test(input)) return false
  const [root, ...names] = input.split('/')
  return (
    root === '' &&
    bytesOf(input) <= PATH_BYTES_MAX &&
    names.length > 0 &&
    names.every(isName) &&
    !KERNEL_PLACES.some((place) => isWithin(input, place))
  )
}

/** @throws BadNoun */
export function parseMountPath(input: unknown): MountPath {
  if (isMountPath(input)) return input
  throw new BadNoun(
    'mount target',
    'must be an absolute path without ., .. and a slash at its end, not the root, and not where /proc, /sys and /dev are',
  )
}

/** Permissions in octal digits, without those that lend a user or group. @throws BadNoun */
export function parseMode(input: string): number {
  if (/^[01]?[0-7]{3}$/u.test(input)) return Number.parseInt(input, 8)
  throw new BadNoun('mode', 'must be three octal digits, with a 1 before them for the sticky bit')
}

/** One mount, as it is asked for. */
export type WantedMount =
  | {
      readonly kind: 'tmpfs'
      readonly path: string
      /** Bytes; null: half of the pod's memory. */
      readonly size: number | null
      readonly mode: number
      readonly exec: boolean
      readonly readOnly: boolean
    }
  | { readonly kind: 'empty'; readonly path: MountPath; readonly mode: number }
  /** A volume of the tenant's, with the owners and modes that its files have. */
  | {
      readonly kind: 'volume'
      readonly path: MountPath
      readonly name: VolumeName
      readonly readOnly: boolean
      /** null: all of it. */
      readonly subPath: SubPath | null
    }
  /** Something of the host's that root lists for the tenant. */
  | {
      readonly kind: 'host'
      readonly path: MountPath
      readonly name: HostPathName
      readonly readOnly: boolean
      /** null: all of it. */
      readonly subPath: SubPath | null
    }

/** The wire form of one. */
export type MountWords = {
  type: 'tmpfs' | 'empty' | 'volume' | 'host'
  target: string
  volume?: string
  host_path?: string
  sub_path?: string
  medium?: 'disk' | 'memory'
  size_bytes?: number
  mode?: string
  exec?: boolean
  read_only?: boolean
}

/** @throws BadNoun */
function parseSize(input: number): number {
  if (Number.isInteger(input) && input >= TMPFS_BYTES_MIN && input <= TMPFS_BYTES_MAX) return input
  throw new BadNoun(
    'size of a mount',
    `must be whole bytes, ${TMPFS_BYTES_MIN} to ${TMPFS_BYTES_MAX}`,
  )
}

/** What a kind of mount does not have is refused. @throws BadNoun */
function refuseStrange(words: MountWords): void {
  if (words.type === 'tmpfs' && words.medium !== undefined) {
    throw new BadNoun('mount', 'of type tmpfs has no medium: it is memory')
  }
  if (words.type === 'empty' && (words.exec !== undefined || words.read_only !== undefined)) {
    throw new BadNoun('mount', 'of type empty can be written and executed; type tmpfs has options')
  }
  if ([words.volume, words.host_path, words.sub_path].some((one) => one !== undefined)) {
    throw new BadNoun('mount', `of type ${words.type} has no source: types volume and host have`)
  }
  if (!isInMemory(words) && words.size_bytes !== undefined) {
    const rule = 'of type empty on disk has no size of its own: the scratch disk bounds it'
    throw new BadNoun('mount', `${rule}; with medium memory it has`)
  }
}

const isInMemory = ({ type, medium }: MountWords): boolean =>
  type === 'tmpfs' || medium === 'memory'

/** What has content of its own already. @throws BadNoun */
function parseSource(words: MountWords & { readonly type: 'volume' | 'host' }): WantedMount {
  const { type, target, volume, host_path: host, sub_path: sub, ...rest } = words
  const { read_only: readOnly = false, medium, size_bytes: size, mode, exec } = rest
  const other = type === 'volume' ? host : volume
  if ([medium, size, mode, exec, other].some((one) => one !== undefined)) {
    const own = type === 'volume' ? 'a volume' : 'a host_path'
    const rule = `of type ${type} has ${own}, a target, sub_path and read_only, and no more`
    throw new BadNoun('mount', rule)
  }
  const subPath = sub === undefined ? null : parseSubPath(sub)
  const common = { path: parseMountPath(target), readOnly, subPath }
  return type === 'volume'
    ? { kind: type, name: parseVolumeName(volume), ...common }
    : { kind: type, name: parseHostPathName(host), ...common }
}

/** @throws BadNoun */
function parseMount(words: MountWords): WantedMount {
  const { type } = words
  if (type === 'volume' || type === 'host') return parseSource({ ...words, type })
  refuseStrange(words)
  const path = parseMountPath(words.target)
  const mode = words.mode === undefined ? TEMPORARY_MODE : parseMode(words.mode)
  if (!isInMemory(words)) return { kind: 'empty', path, mode }
  const size = words.size_bytes === undefined ? null : parseSize(words.size_bytes)
  const { exec = true, read_only: readOnly = false } = words
  return { kind: 'tmpfs', path, size, mode, exec, readOnly }
}

/** @param shm bytes of /dev/shm; undefined: as every pod has it. @throws BadNoun */
export function parseMounts(
  mounts: readonly MountWords[],
  shm: number | undefined,
): readonly WantedMount[] {
  const shared =
    shm === undefined
      ? []
      : [
          {
            kind: 'tmpfs' as const,
            path: SHARED_MEMORY,
            size: parseSize(shm),
            mode: SHARED_MEMORY_MODE,
            exec: false,
            readOnly: false,
          },
        ]
  return [...mounts.map(parseMount), ...shared]
}

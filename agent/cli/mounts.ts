/** What `casemate run` mounts in a pod, from the words of the command line to members of the API. */
import { UsageError } from './arguments.ts'
import { bytesOfFile } from './stored-files.ts'

const UNITS: Readonly<Record<string, number>> = { b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 }

/** `64m`, `1g`, or whole bytes. @throws UsageError */
export function bytesOf(option: string, text: string): number {
  const [, digits = '', unit = 'b'] = /^(\d{1,12})([bkmg])?$/iu.exec(text) ?? []
  if (digits !== '') return Number(digits) * (UNITS[unit.toLowerCase()] ?? 1)
  throw new UsageError(`${option}: a size is a number, and k, m or g behind it if any: 64m`)
}

/** `KEY=value` and `KEY` behind commas. */
function wordsOf(text: string): readonly (readonly [string, string | null])[] {
  return text.split(',').map((word) => {
    const at = word.indexOf('=')
    return at < 0 ? [word, null] : [word.slice(0, at), word.slice(at + 1)]
  })
}

type Member = readonly [name: string, value: string | number | boolean]

/** Words that stand for what every mount is anyway. */
const ALWAYS = new Set(['rw', 'nosuid', 'nodev'])
const FLAGS: ReadonlyMap<string, Member> = new Map<string, Member>([
  ['ro', ['read_only', true]],
  ['readonly', ['read_only', true]],
  ['exec', ['exec', true]],
  ['noexec', ['exec', false]],
])
const NAMES: ReadonlyMap<string, string> = new Map([
  ['type', 'type'],
  ['target', 'target'],
  ['destination', 'target'],
  ['dst', 'target'],
  ['source', 'source'],
  ['src', 'source'],
  ['volume', 'volume'],
  ['subpath', 'sub_path'],
  ['volume-subpath', 'sub_path'],
  ['medium', 'medium'],
  ['mode', 'mode'],
])

/** @throws UsageError */
function memberOf(option: string, [name, value]: readonly [string, string | null]): Member | null {
  if (value === null && ALWAYS.has(name)) return null
  const known = value === null ? FLAGS.get(name) : undefined
  if (known !== undefined) return known
  if (value !== null && name === 'size') return ['size_bytes', bytesOf(option, value)]
  const member = NAMES.get(name)
  if (value !== null && member !== undefined) return [member, value]
  throw new UsageError(`${option}: ${name === '' ? 'an empty word' : name} is not known here`)
}

/** @throws UsageError */
function mountOf(option: string, words: readonly (readonly [string, string | null])[]): object {
  const members = words.flatMap((word) => {
    const member = memberOf(option, word)
    return member === null ? [] : [member]
  })
  const type = members.find(([name]) => name === 'type')?.[1]
  const source = type === 'host' ? 'host_path' : 'volume'
  const mount = Object.fromEntries(
    members.map(([name, value]) => [name === 'source' ? source : name, value]),
  )
  if (Object.keys(mount).length !== members.length) {
    throw new UsageError(`${option}: a word is there twice`)
  }
  if (!Object.hasOwn(mount, 'type') || !Object.hasOwn(mount, 'target')) {
    throw new UsageError(`${option}: a mount has a type and a target, as type=empty,target=/x`)
  }
  return mount
}

/** `NAME[:/path][,mode=400,uid=33,gid=33]`. @throws UsageError */
function fileOf(option: string, kind: 'config' | 'secret' | 'content', text: string): object {
  const [first = '', ...rest] = wordsOf(text)
  const named = first[1] === null ? first[0] : `${first[0]}=${first[1]}`
  const at = kind === 'content' ? named.lastIndexOf(':/') : named.indexOf(':')
  const [name, target] = at < 0 ? [named, undefined] : [named.slice(0, at), named.slice(at + 1)]
  if (kind === 'content' && target === undefined) {
    throw new UsageError(`${option}: say where it is to be, as LOCAL:/path`)
  }
  const source = kind === 'content' ? bytesOfFile(option, name).toString('base64') : name
  const members = rest.map(([word, value]): Member => {
    if (word === 'mode' && value !== null) return ['mode', value]
    if ((word === 'uid' || word === 'gid') && value !== null && /^\d{1,9}$/u.test(value)) {
      return [word, Number(value)]
    }
    throw new UsageError(`${option}: behind the name are mode=, uid= and gid=`)
  })
  return { [kind]: source, target, ...Object.fromEntries(members) }
}

export interface MountOptions {
  /** Each `NAME[:/path][,mode=,uid=,gid=]`. */
  readonly config?: readonly string[]
  /** Likewise. */
  readonly secret?: readonly string[]
  /** Each `LOCAL:/path`, with the same behind it. */
  readonly file?: readonly string[]
  /** Each `type=...,target=...`. */
  readonly mount?: readonly string[]
  /** Each `NAME:PATH` or `NAME:PATH:ro`. */
  readonly volume?: readonly string[]
  /** Each `PATH` or `PATH:size=64m,mode=1777,ro`. */
  readonly tmpfs?: readonly string[]
  readonly shmSize?: string
  /** Each `NAME=value`. */
  readonly sysctl?: readonly string[]
}

/** @throws UsageError */
function tmpfsOf(text: string): object {
  const at = text.indexOf(':')
  const path = at < 0 ? text : text.slice(0, at)
  const words = at < 0 ? [] : wordsOf(text.slice(at + 1))
  return mountOf('--tmpfs', [['type', 'tmpfs'], ['target', path], ...words])
}

/** @throws UsageError */
function volumeOf(text: string): object {
  const [, volume, target, access = 'rw'] = /^([^:/]+):(\/[^:]*)(?::(ro|rw))?$/u.exec(text) ?? []
  if (volume === undefined || target === undefined) {
    throw new UsageError('--volume: a named volume is NAME:/PATH, or NAME:/PATH:ro')
  }
  return { type: 'volume', volume, target, read_only: access === 'ro' }
}

/** @throws UsageError */
function sysctlsOf(entries: readonly string[]): object {
  const pairs = entries.map((entry) => {
    const at = entry.indexOf('=')
    if (at < 1) throw new UsageError('--sysctl: a parameter is NAME=value')
    return [entry.slice(0, at), entry.slice(at + 1)] as const
  })
  return Object.fromEntries(pairs)
}

/** @throws UsageError */
const filesOf = ({ config, secret, file }: MountOptions): readonly object[] => [
  ...(config ?? []).map((text) => fileOf('--config', 'config', text)),
  ...(secret ?? []).map((text) => fileOf('--secret', 'secret', text)),
  ...(file ?? []).map((text) => fileOf('--file', 'content', text)),
]

/** Members of a launch's body; undefined: left out. @throws UsageError */
export function mountMembersOf(options: MountOptions): object {
  const { mount, tmpfs, volume, shmSize, sysctl } = options
  const files = filesOf(options)
  const mounts = [
    ...(volume ?? []).map(volumeOf),
    ...(mount ?? []).map((text) => mountOf('--mount', wordsOf(text))),
    ...(tmpfs ?? []).map(tmpfsOf),
  ]
  return {
    mounts: mounts.length === 0 ? undefined : mounts,
    files: files.length === 0 ? undefined : files,
    shm_bytes: shmSize === undefined ? undefined : bytesOf('--shm-size', shmSize),
    sysctls: sysctl === undefined ? undefined : sysctlsOf(sysctl),
  }
}

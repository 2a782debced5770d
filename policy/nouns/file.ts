/** Single files that a pod gets: of the request itself, or of what its tenant keeps here. */
import { BadNoun, type Branded } from './brand.ts'
import { type MountPath, parseMountPath } from './mount.ts'

/** As in native/ticket/src/files.rs, which holds the same limits. */
export const FILE_BYTES_MAX = 524_288
export const FILES_BYTES_MAX = 1_048_576
/** Of files whose content is in the request: they are kept with it, and a request is small. */
export const INLINE_BYTES_MAX = 65_536
/** The last user and group of a container, and so of every pod. */
const ID_MAX = 65_535

export const STORED_KINDS = ['config', 'secret'] as const
/** What a tenant keeps here. The content of a secret is never shown again. */
export type StoredKind = (typeof STORED_KINDS)[number]

/** Of a stored file, unique among its tenant's of that kind; it is the end of a path. */
export type FileName = Branded<string, 'FileName'>
const isFileName = (input: unknown): input is FileName =>
  typeof input === 'string' && /^[a-z0-9](?:[a-z0-9._-]{0,62})$/u.test(input)

/** @throws BadNoun */
export function parseFileName(input: unknown): FileName {
  if (isFileName(input)) return input
  throw new BadNoun(
    'file name',
    'must be 1 to 63 of a-z, 0-9, dot, dash and underscore, and begin with a letter or digit',
  )
}

/** Where a file comes from. */
export type FileSource =
  | { readonly kind: 'inline'; readonly content: Uint8Array }
  | { readonly kind: StoredKind; readonly name: FileName }

export interface WantedFile {
  readonly path: MountPath
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly source: FileSource
}

/** The wire form of one: exactly one of `config`, `secret` and `content`. */
export type FileWords = {
  config?: string
  secret?: string
  /** Base64. */
  content?: string
  target?: string
  mode?: string
  uid?: number
  gid?: number
}

const DEFAULTS = {
  config: { directory: '/run/config', mode: 0o444 },
  secret: { directory: '/run/secrets', mode: 0o400 },
  inline: { directory: null, mode: 0o444 },
} as const

/** @throws BadNoun */
function parseContent(text: string): Uint8Array {
  const content = Buffer.from(text, 'base64')
  if (content.toString('base64') === text) return content
  throw new BadNoun('content of a file', 'must be base64 with its padding')
}

/** @throws BadNoun */
function parseSource({ config, secret, content }: FileWords): FileSource {
  const given = [config, secret, content].filter((one) => one !== undefined)
  if (given.length !== 1) {
    throw new BadNoun('file', 'must be one of a config, a secret and a content')
  }
  if (content !== undefined) return { kind: 'inline', content: parseContent(content) }
  const kind = secret === undefined ? 'config' : 'secret'
  return { kind, name: parseFileName(secret ?? config) }
}

/** @throws BadNoun */
function parseId(what: string, input: number | undefined): number {
  if (input === undefined) return 0
  if (Number.isInteger(input) && input >= 0 && input <= ID_MAX) return input
  throw new BadNoun(what, `of a file must be a number up to ${ID_MAX}`)
}

/** @throws BadNoun */
function parseFileMode(input: string): number {
  if (/^0?[0-7]{3}$/u.test(input)) return Number.parseInt(input, 8)
  throw new BadNoun('mode', 'of a file must be three octal digits')
}

/** @throws BadNoun */
function parseFile(words: FileWords): WantedFile {
  const source = parseSource(words)
  const { directory, mode } = DEFAULTS[source.kind]
  const own = source.kind === 'inline' || directory === null ? null : `${directory}/${source.name}`
  const path = words.target ?? own
  if (path === null) throw new BadNoun('file', 'with a content must have a target')
  return {
    path: parseMountPath(path),
    mode: words.mode === undefined ? mode : parseFileMode(words.mode),
    uid: parseId('uid', words.uid),
    gid: parseId('gid', words.gid),
    source,
  }
}

/** @throws BadNoun */
export function parseFiles(input: readonly FileWords[]): readonly WantedFile[] {
  const files = input.map(parseFile)
  const inline = files.reduce(
    (sum, { source }) => sum + (source.kind === 'inline' ? source.content.length : 0),
    0,
  )
  if (inline <= INLINE_BYTES_MAX) return files
  throw new BadNoun('files', `with a content must be ${INLINE_BYTES_MAX} bytes together at most`)
}

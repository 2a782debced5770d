/** Trees as comparable listings, from an EROFS image and from a directory on disk. */
import { createHash } from 'node:crypto'
import { readTar, type TarEntry } from '../../native/workers/rootfs/tar.ts'
import { keepXattrs } from '../../native/workers/rootfs/xattr.ts'
import { readErofs } from '../native/workers/rootfs/erofs-reader.ts'
import { must } from './images-programs.ts'

/** One line for each name: everything that a process could see of it but its times. */
export type Listing = readonly string[]

/** Lines that only one of two listings has: short when a test fails, empty when they are equal. */
export function differences(ours: Listing, theirs: Listing): readonly string[] {
  const own = new Set(ours)
  const other = new Set(theirs)
  return [
    ...ours.filter((line) => !other.has(line)).map((line) => `only ours: ${line}`),
    ...theirs.filter((line) => !own.has(line)).map((line) => `only theirs: ${line}`),
  ]
}

interface Line {
  readonly path: string
  readonly type: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly content: string
  readonly xattrs: readonly string[]
}

const lineOf = (line: Line, links: number): string =>
  [
    line.path,
    line.type,
    line.mode.toString(8),
    `${line.uid}:${line.gid}`,
    `${line.size} bytes`,
    `${links} links`,
    line.content,
    ...line.xattrs,
  ].join(' | ')

/** Links of directories say how a file system counts, so they are left out. */
export const listImage = (image: Buffer): Listing =>
  [...readErofs(image)]
    .map(([path, { links, ...found }]) =>
      lineOf({ path, ...found }, found.type === 'directory' ? 0 : links),
    )
    .toSorted()

const PREFIXES: Readonly<Record<number, string>> = {
  1: 'user.',
  2: 'system.posix_acl_access',
  3: 'system.posix_acl_default',
  6: 'security.',
}

const xattrsOf = (entry: TarEntry): readonly string[] =>
  keepXattrs(entry.xattrs)
    .map(({ prefix, suffix, value }) => `${PREFIXES[prefix]}${suffix}=${value.toString('hex')}`)
    .toSorted()

function contentOf(entry: TarEntry, body: readonly Buffer[]): string {
  if (entry.type === 'file') {
    return createHash('sha256').update(Buffer.concat(body)).digest('hex')
  }
  return entry.type.endsWith('-device') ? `${entry.deviceMajor}:${entry.deviceMinor}` : entry.link
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes
}

/** A directory as GNU tar sees it. */
export async function listDirectory(directory: string): Promise<Listing> {
  const parameters = [
    '--xattrs',
    '--xattrs-include=*',
    '--format=pax',
    '-C',
    directory,
    '-cf',
    '-',
    '.',
  ]
  const entries: { entry: TarEntry; body: Buffer[] }[] = []
  await readTar(once(await must('tar', parameters)), (entry) => {
    const body: Buffer[] = []
    entries.push({ entry, body })
    return (chunk) => void body.push(Buffer.from(chunk))
  })
  const lines = new Map<string, Line>()
  const names = new Map<Line, number>()
  for (const { entry, body } of entries) {
    const path = entry.path.join('/')
    const { type, mode, uid, gid, size } = entry
    const own = {
      path,
      type,
      mode,
      uid,
      gid,
      size,
      content: contentOf(entry, body),
      xattrs: xattrsOf(entry),
    }
    const line = type === 'hardlink' ? (lines.get(entry.target.join('/')) ?? own) : own
    lines.set(path, line)
    names.set(line, (names.get(line) ?? 0) + 1)
  }
  return [...lines]
    .map(([path, line]) =>
      lineOf({ ...line, path }, line.type === 'directory' ? 0 : (names.get(line) ?? 0)),
    )
    .toSorted()
}

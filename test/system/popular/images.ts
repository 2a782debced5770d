/**
 * Programs that people run, from Debian's packages, each with a script that starts it, uses it and
 * checks its answers. The script is the image's entry point and the last word of its output is `ok`.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { archive, directory, file, symlink } from '../../native/workers/rootfs/tar-writer.ts'
import type { ImageToPush } from '../signed-image.ts'
import { debianLayer } from './debian-layer.ts'

export interface Popular {
  readonly name: string
  readonly packages: readonly string[]
  /** Virtual CPUs, MiB. There are templates of (1, 128) and (2, 256); other shapes boot cold. */
  readonly machine: readonly [vcpus: number, memoryMib: number]
  /** Of the image, in /data. */
  readonly files?: Readonly<Record<string, string>>
  /** Of the image; root without. */
  readonly user?: string
  /** In every `npm test`; the others are for `npm run test:popular`. */
  readonly always?: true
}

const KEYS = Array.from({ length: 1000 }, (_, index) => index)
/** A hundred in a command. */
const hundreds = (command: string, word: (key: number) => string): readonly string[] =>
  Array.from({ length: 10 }, (_, index) => index * 100).map(
    (first) =>
      `${command} ${KEYS.slice(first, first + 100)
        .map(word)
        .join(' ')}`,
  )
const lines = (all: readonly string[]): string => `${all.join('\n')}\n`
const REDIS = {
  commands: lines([
    ...hundreds('MSET', (key) => `key:${key} value-${key * 7}`),
    ...hundreds('MGET', (key) => `key:${key}`),
    'DBSIZE',
    'GET key:1000',
  ]),
  answers: lines([
    ...Array.from({ length: 10 }, () => 'OK'),
    ...KEYS.map((key) => `value-${key * 7}`),
    '1000',
    '',
  ]),
}

/** Cheapest first. */
export const POPULAR: readonly Popular[] = [
  { name: 'busybox', packages: [], machine: [1, 128], always: true },
  { name: 'redis', packages: ['redis-server'], machine: [1, 128], files: REDIS, always: true },
  { name: 'sqlite', packages: ['sqlite3'], machine: [2, 256] },
  { name: 'perl', packages: ['perl'], machine: [2, 256] },
  { name: 'python', packages: ['python3'], machine: [2, 256] },
  { name: 'nginx', packages: ['nginx-light'], machine: [2, 256] },
  { name: 'postgresql', packages: ['postgresql-15'], machine: [2, 512], user: 'postgres' },
]

const APPLETS = [
  'awk',
  'cat',
  'cmp',
  'cut',
  'diff',
  'echo',
  'env',
  'grep',
  'head',
  'httpd',
  'id',
  'mkdir',
  'rm',
  'sed',
  'seq',
  'sh',
  'sleep',
  'sort',
  'tail',
  'uname',
  'wc',
  'wget',
]

/** What Debian's packages make at installation, a shell, and more. */
export const baseLayer = (...more: readonly Buffer[]): Buffer =>
  archive(
    ...['bin', 'etc', 'root', 'run', 'srv'].map((place) => directory(place)),
    directory('tmp', { mode: 0o1777 }),
    directory('data', { uid: 110, gid: 110 }),
    file('bin/busybox', readFileSync('/bin/busybox'), { mode: 0o755 }),
    ...APPLETS.map((applet) => symlink(`bin/${applet}`, 'busybox')),
    file(
      'etc/passwd',
      'root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/srv:/bin/sh\npostgres:x:110:110::/data:/bin/sh\n',
    ),
    file('etc/group', 'root:x:0:\nwww-data:x:33:\npostgres:x:110:\n'),
    ...more,
  )

/** With the script. */
const ownLayer = ({ name, files = {} }: Popular): Buffer =>
  baseLayer(
    ...Object.entries(files).map(([place, text]) => file(`data/${place}`, text)),
    file('check', readFileSync(path.join(import.meta.dirname, `${name}.sh`)), { mode: 0o755 }),
  )

/** @throws when a package cannot be had */
export function imageOf(popular: Popular): ImageToPush {
  const { name, packages, user } = popular
  const layers = packages.length === 0 ? [] : [debianLayer(packages)]
  return {
    repository: `popular/${name}`,
    layers: [...layers, ownLayer(popular)],
    config: {
      Cmd: ['/check'],
      Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      WorkingDir: '/',
      User: user ?? '',
    },
  }
}

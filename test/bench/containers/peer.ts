/** What every program that starts containers is asked for here, and the image and the words of all of them. */
import { readFileSync } from 'node:fs'
import { archive, directory, file, symlink } from '../../native/workers/rootfs/tar-writer.ts'

/** A container whose app has written `hello`. */
export interface Started {
  /** A program in it; resolves when it has ended well. */
  exec(args: readonly string[]): Promise<void>
  /** Asks it to end (SIGTERM); resolves when it has. */
  stop(): Promise<void>
}

export interface Peer {
  readonly name: string
  /** Resolves at the first output. */
  start(args: readonly string[]): Promise<Started>
  /** Resolves when it has ended, and all that it wrote is where its logs are. */
  run(args: readonly string[]): Promise<void>
}

const LINE = 64
const LINES_BYTES = 2 ** 20
/** What {@link FLOOD} writes. */
export const FLOOD_BYTES: number = 128 * LINES_BYTES
const UID_GID = { uid: 0, gid: 0 }

/** Busybox and a megabyte of lines. */
export const imageTar = (): Buffer =>
  archive(
    directory('bin'),
    directory('etc'),
    ...['dev', 'proc', 'sys'].map((name) => directory(name)),
    file('bin/busybox', readFileSync('/bin/busybox'), { mode: 0o755, ...UID_GID }),
    ...['cat', 'sh', 'sleep', 'true'].map((name) => symlink(`bin/${name}`, 'busybox')),
    file('etc/passwd', 'root:x:0:0::/:/bin/sh\n'),
    file('etc/group', 'root:x:0:\n'),
    file('lines', `${'x'.repeat(LINE - 1)}\n`.repeat(LINES_BYTES / LINE)),
  )

const sh = (script: string): readonly string[] => ['/bin/sh', '-c', script]
/** Says one word, and ends when it is asked to. */
export const HELLO: readonly string[] = sh('trap "exit 0" TERM; echo hello; sleep 1000 & wait')
export const TRUE: readonly string[] = ['/bin/true']
export const FLOOD: readonly string[] = sh(
  `n=0; while [ $n -lt ${FLOOD_BYTES / LINES_BYTES} ]; do cat /lines; n=$((n+1)); done`,
)

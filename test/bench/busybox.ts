/** The image of every measured launch: busybox and nothing else, so that figures stay comparable. */
import { readFileSync } from 'node:fs'
import { archive, directory, file, symlink } from '../native/workers/rootfs/tar-writer.ts'

const BUSYBOX = '/bin/busybox'
const APPLETS = ['echo', 'sh', 'sleep']

export const busyboxTar = (): Buffer =>
  archive(
    directory('bin'),
    directory('etc'),
    file('bin/busybox', readFileSync(BUSYBOX), { mode: 0o755 }),
    ...APPLETS.map((name) => symlink(`bin/${name}`, 'busybox')),
    file('etc/passwd', 'root:x:0:0::/:/bin/sh\n'),
    file('etc/group', 'root:x:0:\n'),
  )

/** One word, and the end. */
export const HELLO: readonly string[] = ['/bin/sh', '-c', 'echo hello']
/** Does nothing, so that what is looked at is the VMM of a quiet guest. */
export const IDLE: readonly string[] = ['/bin/sleep', '1000']

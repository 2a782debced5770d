/** podman with a store of its own, and runc below it. */
import { execFile, execFileSync } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { freshName, peerOf, type Words } from './command.ts'
import type { Peer } from './peer.ts'

const run = promisify(execFile)
/** It asks for more than the host's own limits when it is not told. */
const LIMITS = ['--ulimit', 'nofile=1024:4096', '--ulimit', 'nproc=1000:1000']
const IMAGE = 'localhost/casemate-bench'
const LOGS = ['--log-driver', 'k8s-file']

/** Why podman is not measured, or null. */
export function noPodman(): string | null {
  try {
    execFileSync('podman', ['--version'], { stdio: 'ignore' })
    return null
  } catch {
    return 'podman is not installed'
  }
}

/** @param folder is its own, of at most 45 characters (podman's limit, less its own) @param tar what the image holds @returns a peer with options of `podman run`, without a network if there are none */
export function openPodman(folder: string, tar: Buffer): (options?: readonly string[]) => Peer {
  const of = (name: string): string => path.join(folder, name)
  const place = ['--root', of('store'), '--runroot', of('run')]
  const podman = [...place, '--cgroup-manager', 'cgroupfs', '--runtime', 'runc']
  execFileSync('podman', [...podman, 'import', '-', IMAGE], {
    input: tar,
    stdio: ['pipe', 'ignore', 'pipe'],
  })
  return (options = ['--network', 'none']) => {
    const start = (how: string, container: string, args: readonly string[]): readonly string[] => {
      const name = [how, '--name', container, '--pull', 'never', ...LIMITS, ...LOGS]
      return [...podman, 'run', ...name, ...options, IMAGE, ...args]
    }
    const words: Words = {
      name: 'podman',
      run: (container, args) => ['podman', ...start('--rm', container, args)],
      exec: (container) => ['podman', ...podman, 'exec', container],
      stop: (container) => ['podman', ...podman, 'stop', '--time', '1', container],
    }
    /** Detached, since what is attached is given the output a second time. */
    const flood = async (args: readonly string[]): Promise<void> => {
      const container = freshName()
      await run('podman', [...start('-d', container, args)])
      await run('podman', [...podman, 'wait', '--interval', '10ms', container])
      await run('podman', [...podman, 'rm', container])
    }
    return peerOf(words, flood)
  }
}

/** Where figures were measured: without it they say nothing. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import path from 'node:path'

const root = path.resolve(import.meta.dirname, '../..')

export interface Environment {
  readonly cpu: string
  readonly cores: number
  readonly memory_mib: number
  /** Of the host's kernel. */
  readonly kernel: string
  /** Processes that wanted to run in the minute before: figures of a busy host are worse. */
  readonly load: number
  /** Of the folder that the figures' files are in: the audit log's latency is its fsync. */
  readonly file_system: string
  readonly commit: string | null
  /** Whether files under version control differ from the commit; null where git does not say. */
  readonly changed: boolean | null
  readonly node: string
}

function git(...args: readonly string[]): string | null {
  const { status, stdout } = spawnSync('git', ['-C', root, ...args], { encoding: 'utf8' })
  return status === 0 ? stdout.trim() : null
}

/** Type of the file system `folder` is on: of the last mount over the longest path. */
export function fileSystemOf(folder: string, mounts: string): string {
  const holds = (place: string): boolean =>
    place === '/' || folder === place || folder.startsWith(`${place}/`)
  let best = { place: '', type: 'unknown' }
  for (const line of mounts.split('\n')) {
    const [, place = '', type = 'unknown'] = line.split(' ')
    if (place.startsWith('/') && holds(place) && place.length >= best.place.length) {
      best = { place, type }
    }
  }
  return best.type
}

/** @param folder where the figures' files go, without symbolic links */
export function environment(folder: string): Environment {
  const processors = cpus()
  const changes = git('status', '--porcelain', '--untracked-files=no')
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    memory_mib: Math.round(totalmem() / 2 ** 20),
    kernel: release(),
    load: loadavg()[0] ?? 0,
    file_system: fileSystemOf(folder, readFileSync('/proc/mounts', 'utf8')),
    commit: git('rev-parse', 'HEAD'),
    changed: changes === null ? null : changes !== '',
    node: process.version,
  }
}

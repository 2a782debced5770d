/** What is left of a pod below level vm on the host: groups and who is in them, loop devices, mounts. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const LOOK_MS = 10
const TRIES = 3000

/** The file's text; empty when it has just gone. */
export const read = (file: string): string => {
  try {
    return readFileSync(file, 'latin1')
  } catch {
    return ''
  }
}

/** Directories of this name below each hierarchy's `casemate`. */
export function groupsOf(pod: string): readonly string[] {
  const mounts = read('/proc/self/mounts').matchAll(/^\S+ (\S+) cgroup2? /gmu)
  return [...mounts].flatMap(([, root = '']) => {
    const top = path.join(root, 'casemate')
    const instances = existsSync(top) ? readdirSync(top, { withFileTypes: true }) : []
    return instances
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => path.join(top, name, pod))
      .filter((place) => existsSync(place))
  })
}

/** Loop devices of files in this folder. */
export const loopsOf = (folder: string): readonly string[] =>
  readdirSync('/sys/block').filter((name) =>
    read(`/sys/block/${name}/loop/backing_file`).startsWith(folder),
  )

/** A group of a pod's apps and those below it, the deepest first. */
export const appGroupsOf = (group: string): readonly string[] => {
  const app = path.join(group, 'app')
  if (!existsSync(app)) return []
  const inside = readdirSync(app, { withFileTypes: true }).filter((entry) => entry.isDirectory())
  return [...inside.map(({ name }) => path.join(app, name)), app]
}

export const idsIn = (group: string): readonly string[] =>
  read(path.join(group, 'cgroup.procs')).split('\n').filter(Boolean)

/** Process ids in the apps' groups. */
export const membersOf = (pod: string): readonly string[] =>
  groupsOf(pod).flatMap(appGroupsOf).flatMap(idsIn)

/** Waits until nothing of a pod is left on the host. @param more what else is left */
export async function gone(
  folder: string,
  pod: string,
  more: () => readonly string[] = () => [],
): Promise<void> {
  const left = (): readonly string[] => [
    ...groupsOf(pod),
    ...loopsOf(folder),
    ...more(),
    ...(read('/proc/self/mountinfo').includes('lowerdir=image') ? ['a mount'] : []),
  ]
  for (let tries = 0; left().length > 0; tries += 1) {
    assert.ok(tries < TRIES, `left of ${pod}: ${left().join(' ')}`)
    await sleep(LOOK_MS)
  }
}

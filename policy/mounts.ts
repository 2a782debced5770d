/** What is mounted in a pod, and which parameters of the kernel are its own: the plan's part of storage. */
import type { FileFacts, ImageConfig, LaunchQuestion } from './facts.ts'
import { HOST_PATHS_MAX, planHostPath } from './host-paths.ts'
import { BadNoun } from './nouns/brand.ts'
import { FILES_BYTES_MAX, type WantedFile } from './nouns/file.ts'
import type { MemoryMib } from './nouns/machine.ts'
import {
  isWithin,
  MOUNTS_MAX,
  type MountPath,
  parseMountPath,
  type WantedMount,
} from './nouns/mount.ts'
import { SYSCTLS } from './nouns/sysctl.ts'
import type { Plan, PlannedMount } from './plan.ts'
import { Refusal } from './refusal.ts'

const MIB = 2 ** 20
/** As many spare disks as a virtual machine has (native/ticket/src/mounts.rs). */
const VOLUMES_MAX = 4

/** @throws Refusal MOUNT_CONFLICT, MOUNT_TOO_LARGE, SYSCTL_NOT_PERMITTED, IMAGE_CONFIG_INVALID, HOST_PATH_... */
export function planMounts(
  { tenant, request, image, files, host }: LaunchQuestion,
  memoryMib: MemoryMib,
): Pick<Plan, 'mounts' | 'storedFiles' | 'sysctls'> {
  const asked = request.mounts.map((mount) =>
    mount.kind === 'host' ? planHostPath(mount, tenant, host) : sized(mount, memoryMib),
  )
  const declared = request.readOnlyRoot ? declaredBy(image.config, request.mounts) : []
  const single = request.files.map((wanted, at) => fileOf(wanted, at, files))
  refuseTooMuch(single)
  const mounts = [...asked, ...declared, ...single].toSorted((a, b) => (a.path < b.path ? -1 : 1))
  refuseConflicts(mounts)
  refuseHidden(mounts, request)
  const unknown = request.sysctls.find(({ name }) => !Object.hasOwn(SYSCTLS, name))
  if (unknown !== undefined) throw notOwn(unknown.name)
  const storedFiles = files.flatMap(({ stored }) => (stored === null ? [] : [stored]))
  return { mounts, storedFiles, sysctls: request.sysctls }
}

function fileOf(
  { path, mode, uid, gid }: WantedFile,
  at: number,
  facts: readonly FileFacts[],
): PlannedMount & { readonly kind: 'file' } {
  const found = facts[at]
  if (found === undefined) throw new Error('a file of the request was not looked for')
  return { kind: 'file', path, mode, uid, gid, size: found.size, file: at }
}

/** @throws Refusal MOUNT_TOO_LARGE */
function refuseTooMuch(files: readonly { readonly size: number }[]): void {
  const size = files.reduce((sum, file) => sum + file.size, 0)
  if (size <= FILES_BYTES_MAX) return
  throw new Refusal(
    'MOUNT_TOO_LARGE',
    `The pod's files have ${size} bytes together, and a pod takes ${FILES_BYTES_MAX}. Give it fewer, or a volume.`,
    { size, limit: FILES_BYTES_MAX },
  )
}

/** @throws Refusal MOUNT_TOO_LARGE */
function sized(mount: Exclude<WantedMount, { kind: 'host' }>, memoryMib: MemoryMib): PlannedMount {
  if (mount.kind !== 'tmpfs') return mount
  const most = memoryMib * MIB
  const size = mount.size ?? most / 2
  if (size <= most) return { ...mount, size }
  throw new Refusal(
    'MOUNT_TOO_LARGE',
    `The mount at ${mount.path} may take ${size} bytes of memory, and the pod has ${most}. Ask for a smaller one, or for more memory.`,
    { path: mount.path, size, limit: most },
  )
}

/**
 * Places of which the image says that they are written. With a root that can be written they are directories of it as all
 * others are; in a read-only root they stay what the image has there, and can be written.
 * @throws Refusal IMAGE_CONFIG_INVALID
 */
function declaredBy(config: ImageConfig, asked: readonly WantedMount[]): readonly PlannedMount[] {
  const places = config.volumes.map(volumePath).toSorted()
  const isHidden = (path: string): boolean => asked.some((mount) => isWithin(path, mount.path))
  return places
    .filter((path, at) => !places.slice(0, at).some((before) => isWithin(path, before)))
    .filter((path) => !isHidden(path))
    .map((path) => ({ kind: 'image', path }))
}

/** @throws Refusal IMAGE_CONFIG_INVALID */
function volumePath(declared: string): MountPath {
  try {
    return parseMountPath(declared.length > 1 ? declared.replace(/\/+$/u, '') : declared)
  } catch (error) {
    if (!(error instanceof BadNoun)) throw error
    throw new Refusal(
      'IMAGE_CONFIG_INVALID',
      `The image declares a volume where none can be: its ${error.message}. Run it without a read-only root.`,
      { what: 'Volumes' },
    )
  }
}

const isInTheWay = (one: PlannedMount, other: PlannedMount): boolean =>
  one.path === other.path || (one.kind === 'file' && isWithin(other.path, one.path))

/** @throws Refusal MOUNT_CONFLICT */
function refuseConflicts(mounts: readonly PlannedMount[]): void {
  const second = mounts.find((mount, at) =>
    mounts.slice(0, at).some((before) => isInTheWay(before, mount)),
  )
  if (second !== undefined) {
    throw new Refusal(
      'MOUNT_CONFLICT',
      `Something else is to be mounted where ${second.path} is, or a file above it. Leave one of them out.`,
      { path: second.path },
    )
  }
  refuseVolumes(mounts)
  refuseManyHostPaths(mounts)
  if (mounts.length <= MOUNTS_MAX) return
  throw new Refusal(
    'MOUNT_CONFLICT',
    `${mounts.length} mounts are asked for, those that the image declares included; a pod has at most ${MOUNTS_MAX}. Leave some out.`,
    { mounts: mounts.length, limit: MOUNTS_MAX },
  )
}

/**
 * Names that a launch asks for are written into files of the root, which a mount would hide. What the host gives without
 * being asked is hidden by who means to.
 * @throws Refusal MOUNT_CONFLICT
 */
function refuseHidden(
  mounts: readonly PlannedMount[],
  { hosts, nameservers, search }: LaunchQuestion['request'],
): void {
  const written = [
    ...(hosts.length > 0 ? ['/etc/hosts'] : []),
    ...(nameservers !== null || search !== null ? ['/etc/resolv.conf'] : []),
  ]
  for (const file of written) {
    const above = mounts.find(({ path }) => isWithin(file, path))
    if (above === undefined) continue
    throw new Refusal(
      'MOUNT_CONFLICT',
      `The mount at ${above.path} would hide ${file}, into which the launch has names written. Leave one of them out.`,
      { path: above.path, file },
    )
  }
}

/** @throws Refusal MOUNT_CONFLICT */
function refuseVolumes(mounts: readonly PlannedMount[]): void {
  const names = mounts.flatMap((mount) => (mount.kind === 'volume' ? [mount.name] : []))
  const twice = names.find((name, at) => names.indexOf(name) !== at)
  if (twice !== undefined) {
    const sentence = `Volume ${twice} is asked for at two places. Leave one of them out.`
    throw new Refusal('MOUNT_CONFLICT', sentence, { volume: twice })
  }
  if (names.length <= VOLUMES_MAX) return
  const sentence = `${names.length} volumes are asked for; a pod has at most ${VOLUMES_MAX}. Leave some out.`
  throw new Refusal('MOUNT_CONFLICT', sentence, { volumes: names.length, limit: VOLUMES_MAX })
}

/** @throws Refusal MOUNT_CONFLICT */
function refuseManyHostPaths(mounts: readonly PlannedMount[]): void {
  const count = mounts.filter(({ kind }) => kind === 'host').length
  if (count <= HOST_PATHS_MAX) return
  const sentence = `${count} paths of the host are asked for; a pod has at most ${HOST_PATHS_MAX}. Leave some out.`
  throw new Refusal('MOUNT_CONFLICT', sentence, { host_paths: count, limit: HOST_PATHS_MAX })
}

const notOwn = (name: string): Refusal =>
  new Refusal(
    'SYSCTL_NOT_PERMITTED',
    `The parameter ${name} is not the pod's alone, or nobody has said why tenants should set it. Leave it out; those that may be set are in docs/running.md.`,
    { sysctl: name },
  )

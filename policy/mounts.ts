/** What is mounted in a pod, and which parameters of the kernel are its own: the plan's part of storage. */
import type { ImageConfig, LaunchQuestion } from './facts.ts'
import { BadNoun } from './nouns/brand.ts'
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

/** @throws Refusal MOUNT_CONFLICT, MOUNT_TOO_LARGE, SYSCTL_NOT_PERMITTED, IMAGE_CONFIG_INVALID */
export function planMounts(
  { request, image }: LaunchQuestion,
  memoryMib: MemoryMib,
): Pick<Plan, 'mounts' | 'sysctls'> {
  const asked = request.mounts.map((mount) => sized(mount, memoryMib))
  const declared = request.readOnlyRoot ? declaredBy(image.config, request.mounts) : []
  const mounts = [...asked, ...declared].toSorted((a, b) => (a.path < b.path ? -1 : 1))
  refuseConflicts(mounts)
  const unknown = request.sysctls.find(({ name }) => !Object.hasOwn(SYSCTLS, name))
  if (unknown !== undefined) throw notOwn(unknown.name)
  return { mounts, sysctls: request.sysctls }
}

/** @throws Refusal MOUNT_TOO_LARGE */
function sized(mount: WantedMount, memoryMib: MemoryMib): PlannedMount {
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

/** @throws Refusal MOUNT_CONFLICT */
function refuseConflicts(mounts: readonly PlannedMount[]): void {
  const twice = mounts.find(({ path }, at) => mounts[at - 1]?.path === path)
  if (twice !== undefined) {
    throw new Refusal(
      'MOUNT_CONFLICT',
      `Two mounts are asked for at ${twice.path}. Leave one of them out.`,
      { path: twice.path },
    )
  }
  if (mounts.length <= MOUNTS_MAX) return
  throw new Refusal(
    'MOUNT_CONFLICT',
    `${mounts.length} mounts are asked for, those that the image declares included; a pod has at most ${MOUNTS_MAX}. Leave some out.`,
    { mounts: mounts.length, limit: MOUNTS_MAX },
  )
}

const notOwn = (name: string): Refusal =>
  new Refusal(
    'SYSCTL_NOT_PERMITTED',
    `The parameter ${name} is not the pod's alone, or nobody has said why tenants should set it. Leave it out; those that may be set are in docs/running.md.`,
    { sysctl: name },
  )

/** The plan's part of paths of the host: what root's list has of them, and at which level they are. */
import type { HostFacts, TenantFacts } from './facts.ts'
import type { IsolationLevel } from './nouns/isolation.ts'
import type { WantedMount } from './nouns/mount.ts'
import type { PlannedMount } from './plan.ts'
import { Refusal } from './refusal.ts'

type Wanted = Extract<WantedMount, { kind: 'host' }>

/** As many as native/ticket/src/host_path.rs takes. */
export const HOST_PATHS_MAX = 8

/**
 * With what root's list says of it. Of an entry that is another tenant's nothing is told, not that it is there.
 * @throws Refusal HOST_PATH_UNKNOWN, HOST_PATH_READ_ONLY
 */
export function planHostPath(
  wanted: Wanted,
  tenant: TenantFacts,
  host: HostFacts,
): Extract<PlannedMount, { kind: 'host' }> {
  const { name } = wanted
  const entry = Object.hasOwn(host.hostPaths, name) ? host.hostPaths[name] : undefined
  if (entry === undefined || !entry.tenants.includes(tenant.id)) {
    throw new Refusal(
      'HOST_PATH_UNKNOWN',
      `There is no path ${name} of the host for this tenant. Correct the name, or ask the provider for it.`,
      { host_path: name },
    )
  }
  const { ids, exec } = entry
  if (ids === null && !wanted.readOnly) {
    throw new Refusal(
      'HOST_PATH_READ_ONLY',
      `Path ${name} of the host can only be read. Mount it read-only.`,
      { host_path: name },
    )
  }
  return { ...wanted, ids, exec }
}

/**
 * A virtual machine shares no file with the host while both run.
 * @throws Refusal HOST_PATH_LEVEL
 */
export function refuseHostPaths(mounts: readonly PlannedMount[], level: IsolationLevel): void {
  const found = mounts.find((mount) => mount.kind === 'host')
  if (level === 'container' || found?.kind !== 'host') return
  const instead = level === 'vm' ? 'Give it a volume or files, or ask' : 'Ask'
  throw new Refusal(
    'HOST_PATH_LEVEL',
    `Path ${found.name} of the host is for containers, and the pod has level ${level}. ${instead} for level container.`,
    { host_path: found.name, level },
  )
}

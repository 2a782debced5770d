/** Volumes of a launch: what spawn has of them, before anything of it is on record. */
import { type Plan, Refusal } from '../../policy/index.ts'
import type { Pod, TenantScope } from '../../tenants/index.ts'
import type { Ports } from './ports.ts'
import { listVolumes } from './volumes.ts'

/** A volume among a plan's mounts. */
export interface PlannedVolume {
  readonly name: string
  readonly readOnly: boolean
  readonly sizeBytes: number
}

interface Wanted {
  readonly name: string
  readonly readOnly: boolean
}

const wantedOf = ({ mounts }: Plan): readonly Wanted[] =>
  mounts.flatMap((mount) => (mount.kind === 'volume' ? [mount] : []))

/**
 * The volumes of the plan, in the order of its mounts. Spawn has the last word: what it says here may have changed by
 * then.
 * @throws Refusal VOLUME_UNKNOWN, VOLUME_IN_USE, VOLUME_VM_ONLY; ApiError SPAWN_UNAVAILABLE
 */
export async function findVolumes(
  ports: Pick<Ports, 'spawn'>,
  scope: TenantScope,
  plan: Plan,
): Promise<readonly PlannedVolume[]> {
  const wanted = wantedOf(plan)
  if (wanted.length === 0) return []
  const known = await listVolumes(ports, scope)
  return wanted.map(({ name, readOnly }) => {
    const found = known.find(({ status }) => status.volume === name)?.status
    if (found === undefined) {
      const sentence = `The tenant has no volume ${name}. Create it, or correct the name.`
      throw new Refusal('VOLUME_UNKNOWN', sentence, { volume: name })
    }
    if (found.pod !== null) throw inUse(name, found.pod)
    if (found.machine && plan.level !== 'vm') throw vmOnly(name, plan.level)
    return { name, readOnly, sizeBytes: found.size_bytes }
  })
}

const inUse = (volume: string, pod: Pod['id'] | string): Refusal =>
  new Refusal('VOLUME_IN_USE', `Pod ${pod} has volume ${volume}. Stop that pod first.`, {
    volume,
    pod,
  })

const vmOnly = (volume: string, level: string): Refusal =>
  new Refusal(
    'VOLUME_VM_ONLY',
    `A virtual machine could write to volume ${volume}, and what a guest may have made is not mounted by the host's kernel. Ask for level vm, or restore a snapshot of before.`,
    { volume, level },
  )

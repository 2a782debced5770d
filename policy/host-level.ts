/**
 * Level host: a process section in a mount namespace, and all else is the host's. What a pod cannot have of its own
 * there is refused, and never ignored; what it has would be the host's.
 */
import type { LaunchRequest } from './facts.ts'
import { HOST_LEVEL_CAPABILITIES } from './nouns/capability.ts'
import type { IsolationLevel } from './nouns/isolation.ts'
import { HOST_NETWORK } from './nouns/network.ts'
import type { PlannedProcess } from './plan.ts'
import { Refusal } from './refusal.ts'

/** Members of a launch that name a thing of the pod's own, with what the host has in its place. */
const OWN: Readonly<Record<string, (request: LaunchRequest) => boolean>> = {
  hostname: ({ hostname }) => hostname !== null,
  sysctls: ({ sysctls }) => sysctls.length > 0,
  egress: ({ egress }) => egress !== null,
  nameservers: ({ nameservers }) => nameservers !== null,
  search: ({ search }) => search !== null,
  hosts: ({ hosts }) => hosts.length > 0,
  publish: ({ publish }) => publish.length > 0,
}

/** @throws Refusal NETWORK_NOT_AVAILABLE, OPTION_NOT_AT_LEVEL, CAPABILITY_NOT_PERMITTED */
export function refuseAtLevel(request: LaunchRequest, level: IsolationLevel): void {
  refuseNetwork(request, level)
  if (level !== 'host') return
  const [option] = Object.entries(OWN).find(([, isAsked]) => isAsked(request)) ?? []
  if (option !== undefined) {
    throw new Refusal(
      'OPTION_NOT_AT_LEVEL',
      `At level host a pod has no ${option} of its own: what it sees of that is the host's. Leave ${option} out, or ask for another level.`,
      { option, level },
    )
  }
  const beyond = request.capabilitiesAdd.find((name) => !HOST_LEVEL_CAPABILITIES.includes(name))
  if (beyond !== undefined) {
    throw new Refusal(
      'CAPABILITY_NOT_PERMITTED',
      `At level host ${beyond} would be one over the host. Leave it out, or ask for another level.`,
      { capability: beyond, level },
    )
  }
}

/** The host's network goes with level host, and is asked for by name: nobody gets it unawares. @throws Refusal */
function refuseNetwork({ network }: LaunchRequest, level: IsolationLevel): void {
  if ((level === 'host') === (network === HOST_NETWORK)) return
  const sentence =
    level === 'host'
      ? `A pod at level host shares the host's network and has no other. Ask for network ${HOST_NETWORK}, or for another level.`
      : `The host's network is there at level host alone, and not at level ${level}.`
  throw new Refusal('NETWORK_NOT_AVAILABLE', sentence, { network, level })
}

/** Without capabilities that would be over the host. */
export function processAtLevel(process: PlannedProcess, level: IsolationLevel): PlannedProcess {
  if (level !== 'host') return process
  const { ambient, bounding, effective, inheritable, permitted } = process.capabilities
  const within = (set: typeof bounding): typeof bounding =>
    set.filter((name) => HOST_LEVEL_CAPABILITIES.includes(name))
  return {
    ...process,
    capabilities: {
      ambient: within(ambient),
      bounding: within(bounding),
      effective: within(effective),
      inheritable: within(inheritable),
      permitted: within(permitted),
    },
  }
}

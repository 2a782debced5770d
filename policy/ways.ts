/** What a pod is connected to, what it reaches from there and by which names: the plan's part of networks. */
import type { LaunchQuestion } from './facts.ts'
import { parseIp } from './nouns/address.ts'
import { beyondEgress, type Egress, type EgressRule, egressWords } from './nouns/egress.ts'
import { type Names, NO_NAMES } from './nouns/names.ts'
import { HOST_NETWORK, type NetworkName, NO_NETWORK, TENANT_NETWORK } from './nouns/network.ts'
import { permitsPort, portRangeWords } from './nouns/ports.ts'
import type { Plan } from './plan.ts'
import { Refusal } from './refusal.ts'

const DNS_PORT = 53

/** @throws Refusal NETWORK_NOT_AVAILABLE, EGRESS_NOT_PERMITTED, PORT_NOT_PERMITTED */
export function planWays(
  question: LaunchQuestion,
): Pick<Plan, 'networked' | 'egress' | 'names' | 'ports'> {
  const { request } = question
  if (!isNetworked(request.network)) {
    return { networked: false, egress: null, names: NO_NAMES, ports: [] }
  }
  refusePorts(question)
  const egress = egressOf(question)
  const names = namesOf(question, egress)
  const ports = request.publish
  return { networked: true, egress: egress && withNameservers(egress, question), names, ports }
}

/** @throws Refusal */
function isNetworked(network: NetworkName): boolean {
  if (network === TENANT_NETWORK) return true
  // With the host's network a pod has no place on one, and nothing of its own there: host-level.ts.
  if (network === NO_NETWORK || network === HOST_NETWORK) return false
  throw new Refusal(
    'NETWORK_NOT_AVAILABLE',
    `There is no network ${network}. In this version a pod has its tenant's (${TENANT_NETWORK}) or none (${NO_NETWORK}).`,
    { network },
  )
}

/** What was asked for, never more than the tenant's. @throws Refusal */
function egressOf({ tenant, request }: LaunchQuestion): Egress | null {
  if (request.egress === null) return tenant.egress
  const { wanted } = request.egress
  const beyond = beyondEgress(tenant.egress, wanted)
  if (beyond === null) return wanted
  const words = egressWords(tenant.egress)
  const permitted = words.length === 0 ? 'nothing' : words.join(' ')
  throw new Refusal(
    'EGRESS_NOT_PERMITTED',
    `Pods of tenant ${tenant.id} may not reach ${beyond}; what they may reach is ${permitted}. Ask for less, or the provider for more (tenant change --egress).`,
    { egress: beyond, permitted: words },
  )
}

/** @throws Refusal */
function refusePorts({ tenant, request }: LaunchQuestion): void {
  const beyond = request.publish.find((port) => !permitsPort(tenant.ports, port))
  if (beyond === undefined) return
  const words = portRangeWords(tenant.ports)
  const permitted = words.length === 0 ? 'none' : words.join(' ')
  throw new Refusal(
    'PORT_NOT_PERMITTED',
    `Tenant ${tenant.id} may not publish port ${beyond.host} at ${beyond.address}; its ports are ${permitted}. Take one of these, or ask the provider for more (tenant change --ports).`,
    { address: beyond.address, port: beyond.host, permitted: words },
  )
}

/** Who cannot ask the host's nameservers is not told of them. */
function namesOf({ request, host }: LaunchQuestion, egress: Egress | null): Names {
  const given = egress === null ? NO_NAMES : host.resolver
  const nameservers = request.nameservers ?? given.nameservers
  const search = request.search ?? given.search
  return { hosts: request.hosts, nameservers, options: given.options, search }
}

/** The host's own nameservers are reached by every pod with a way out, wherever they are. */
function withNameservers(egress: Egress, { host }: LaunchQuestion): Egress {
  const rules = host.resolver.nameservers.flatMap((address): readonly EgressRule[] => {
    const cidr = `${address}/${parseIp(address)?.version === 6 ? 128 : 32}`
    const ports = { from: DNS_PORT, to: DNS_PORT }
    return [
      { cidr, ports, protocol: 'udp' },
      { cidr, ports, protocol: 'tcp' },
    ]
  })
  return { ...egress, rules: [...egress.rules, ...rules] }
}

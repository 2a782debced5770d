/** Whether a tenant may be launched on the host as it was found. */
import type { HostFacts, TenantFacts } from './facts.ts'
import type { HostException } from './nouns/host-finding.ts'
import { Refusal } from './refusal.ts'

/**
 * A wall beside Cedar, as those of invariants.ts: a policy set has no end, and what is wrong with a
 * host is set aside only until a day, by somebody who answers for it.
 */
const HOST_SAFE = 'invariant.host-safe'

/**
 * The exceptions without which this tenant would be refused; a trusted one needs none, whose launches
 * name the findings all the same.
 * @throws Refusal HOST_UNSAFE
 */
export function neededExceptions(
  { trust }: TenantFacts,
  { findings: found, exceptions }: HostFacts,
): readonly HostException[] {
  if (trust === 'trusted') return []
  const severe = found.findings.filter((one) => one.severity === 'severe')
  const needed = severe.map(({ id }) => exceptions.find(({ finding }) => finding === id))
  const open = severe.filter((_, index) => needed[index] === undefined)
  if (open.length === 0) return needed.filter((one) => one !== undefined)
  const ids = open.map((one) => one.id)
  throw new Refusal(
    'HOST_UNSAFE',
    `This host fails a check that tenants like this one need (${ids.join(', ')}), and no exception for it is in force. Its operator sees why with \`casemate doctor\`.`,
    { findings: ids, fixes: open.map((one) => `${one.id}: ${one.fix}`) },
    [HOST_SAFE],
  )
}

/** What is known by name of a tenant: its id and how far the provider trusts it. */
import { BadNoun, type Branded } from './brand.ts'

/**
 * A tenant's id: a DNS label of 1 to 40 characters. It becomes a directory, a cgroup and a member
 * of records, so it holds nothing that any of them would read as something else.
 */
export type TenantId = Branded<string, 'TenantId'>
export const TENANT_ID_CHARACTERS_MAX = 40
const tenantId = /^[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?$/u

const isTenantId = (input: unknown): input is TenantId =>
  typeof input === 'string' && tenantId.test(input)

/** @throws BadNoun */
export function parseTenantId(input: unknown): TenantId {
  if (isTenantId(input)) return input
  throw new BadNoun(
    'tenant id',
    `must be 1 to ${TENANT_ID_CHARACTERS_MAX} of a-z, 0-9 and -, begin with a letter and not end with -`,
  )
}

/** Trust in ascending order. Only `trusted` may ever share the host's kernel. */
export const TRUSTS = ['untrusted', 'verified', 'trusted'] as const
export type Trust = (typeof TRUSTS)[number]

const isTrust = (input: unknown): input is Trust => TRUSTS.some((trust) => trust === input)

/** @throws BadNoun */
export function parseTrust(input: unknown): Trust {
  if (isTrust(input)) return input
  throw new BadNoun('trust', `must be one of ${TRUSTS.join(', ')}`)
}

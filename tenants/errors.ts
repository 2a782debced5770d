/** What can go wrong with tenants, by code. Refusals of a decision are policy's Refusal instead. */

export const TENANTS_ERROR_CODES = [
  /** No such tenant, or not one the caller may see: the two must look the same. */
  'TENANT_NOT_FOUND',
  'TENANT_EXISTS',
  /** It cannot be deleted: it is not suspended, or something of it is left. */
  'TENANT_IN_USE',
  /** A tenant's identity asked for what only operators of the host may do. */
  'OPERATOR_ONLY',
  /** No such pod in this tenant; another tenant's pod looks the same. */
  'POD_NOT_FOUND',
  'POD_EXISTS',
  /** Another pod of the tenant that has not ended has the name. Facts: pod. */
  'POD_NAME_TAKEN',
  /** The beginning of an id that more than one pod of the tenant has. */
  'POD_AMBIGUOUS',
  /** The pod is not in a state that allows this. Facts: state. */
  'POD_STATE_CONFLICT',
  /** The tenant has a config, or secret, of that name. */
  'FILE_EXISTS',
  /** The tenant has as many configs and secrets as it may have. Facts: limit. */
  'FILES_FULL',
  /** The key of stored files can be read by others, or is not the one that they were stored with. */
  'FILE_KEY_UNSAFE',
  'TOKEN_TOO_LARGE',
  'TOKEN_INVALID',
  'TOKEN_EXPIRED',
  /** Revoked, or never recorded as issued by this host. */
  'TOKEN_REVOKED',
  /** The key file of the tokens can be read by others, or is not what it should be. */
  'TOKEN_KEY_UNSAFE',
  /** The key was used before, with another request: HTTP 422. */
  'IDEMPOTENCY_KEY_REUSED',
  /** The first request with the key has not been answered yet: HTTP 409. Facts: pod. */
  'IDEMPOTENCY_IN_FLIGHT',
  /** The database was written by a newer Casemate. */
  'STORE_NEWER',
  /** The file is a database of another program. */
  'STORE_FOREIGN',
  'STORE_CORRUPT',
] as const
export type TenantsErrorCode = (typeof TENANTS_ERROR_CODES)[number]

export class TenantsError extends Error {
  override readonly name = 'TenantsError'
  readonly code: TenantsErrorCode
  readonly facts: Readonly<Record<string, string | number | null>>

  constructor(
    code: TenantsErrorCode,
    sentence: string,
    facts: Readonly<Record<string, string | number | null>> = {},
    options: ErrorOptions = {},
  ) {
    super(sentence, options)
    this.code = code
    this.facts = facts
  }
}

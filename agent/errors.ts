/**
 * Every error that leaves the API, as a problem document (RFC 9457). The code is the contract, the
 * sentence is for people, the status follows from the code by the one table below.
 */
import { AuditUnavailable, RecordTooLarge } from '../audit/index.ts'
import { BadDocument, BadNoun, type Facts, Refusal, type RefusalCode } from '../policy/index.ts'
import { TenantsError, type TenantsErrorCode } from '../tenants/errors.ts'
import { ImageError, type ImageErrorCode } from './images/errors.ts'

/** What the API refuses for by itself; policy, images and tenants have their own codes. */
export type ApiCode =
  | 'AUDIT_UNAVAILABLE'
  | 'BAD_REQUEST'
  | 'BODY_TOO_LARGE'
  | 'EVENTS_GONE'
  | 'EXEC_PROTOCOL'
  | 'EXEC_SESSIONS_FULL'
  | 'FILES_FULL'
  | 'FILE_EXISTS'
  | 'FORBIDDEN'
  | 'HOST_DRAINING'
  | 'HOST_FULL'
  | 'IDEMPOTENCY_IN_FLIGHT'
  | 'IDEMPOTENCY_KEY_MISSING'
  | 'IDEMPOTENCY_KEY_REUSED'
  | 'INPUT_ENDED'
  | 'INPUT_TAKEN'
  | 'INTERNAL'
  | 'LAUNCH_FAILED'
  | 'NOT_FOUND'
  | 'PAUSE_NOT_AVAILABLE'
  | 'POD_AMBIGUOUS'
  | 'POD_NAME_TAKEN'
  | 'POD_STATE_CONFLICT'
  | 'PROCESSES_UNAVAILABLE'
  | 'REQUEST_TIMEOUT'
  | 'RESIZE_FAILED'
  | 'RESIZE_UNCONFIRMED'
  | 'RESTART_NEEDS_OPEN_REGISTRY'
  | 'SCRATCH_SHRINK'
  | 'SCRATCH_TOO_LARGE'
  | 'SHUTTING_DOWN'
  | 'SPAWN_UNAVAILABLE'
  | 'TENANT_EXISTS'
  | 'TENANT_IN_USE'
  | 'TOO_MANY_REQUESTS'
  | 'UNAUTHENTICATED'
  | 'UNSUPPORTED_MEDIA_TYPE'
  | 'WAIT_ENDED'
  | 'VOLUME_BUSY'
  | 'VOLUME_EXISTS'
  | 'VOLUME_HAS_SNAPSHOTS'
  | 'VOLUME_SHRINK'
  | 'WAIT_TIMEOUT'

/** Every code a problem document may carry. */
export type ErrorCode = ApiCode | RefusalCode | ImageErrorCode

/** The one table from codes to HTTP statuses. */
export const STATUSES: Readonly<Record<ErrorCode, number>> = {
  AUDIT_UNAVAILABLE: 503,
  BAD_REQUEST: 400,
  BODY_TOO_LARGE: 413,
  CAPABILITY_NOT_PERMITTED: 403,
  CONFIG_NOT_FOUND: 404,
  EGRESS_NOT_PERMITTED: 403,
  EVENTS_GONE: 410,
  EXEC_PROTOCOL: 426,
  EXEC_SESSIONS_FULL: 429,
  FILES_FULL: 429,
  FILE_EXISTS: 409,
  FORBIDDEN: 403,
  HOST_DRAINING: 503,
  HEALTHCHECK_MISSING: 422,
  HOST_FULL: 503,
  HOST_PATH_LEVEL: 422,
  HOST_PATH_MISSING: 422,
  HOST_PATH_READ_ONLY: 422,
  HOST_PATH_UNKNOWN: 422,
  HOST_PATH_UNSAFE: 409,
  HOST_UNSAFE: 503,
  IDEMPOTENCY_IN_FLIGHT: 409,
  IDEMPOTENCY_KEY_MISSING: 400,
  IDEMPOTENCY_KEY_REUSED: 422,
  IMAGE_BUILD_FAILED: 500,
  IMAGE_BUSY: 429,
  IMAGE_CONFIG_INVALID: 422,
  IMAGE_DIGEST_MISMATCH: 422,
  IMAGE_LAYER_INVALID: 422,
  IMAGE_MANIFEST_INVALID: 422,
  IMAGE_NOT_PERMITTED: 403,
  IMAGE_PLATFORM_MISSING: 422,
  IMAGE_QUOTA_EXCEEDED: 429,
  IMAGE_REFERENCE_INVALID: 422,
  IMAGE_SIGNATURE_MISMATCH: 403,
  IMAGE_SIGNER_NOT_ACCEPTED: 403,
  IMAGE_STORAGE_FULL: 507,
  IMAGE_TOO_LARGE: 422,
  IMAGE_UNKNOWN: 422,
  IMAGE_UNSIGNED: 403,
  INPUT_ENDED: 409,
  INPUT_TAKEN: 409,
  INTERNAL: 500,
  ISOLATION_NOT_AVAILABLE: 501,
  ISOLATION_NOT_PERMITTED: 403,
  ISOLATION_UNAVAILABLE: 503,
  LAUNCHES_FAILING: 429,
  LAUNCH_FAILED: 502,
  LAUNCH_RATE_EXCEEDED: 429,
  MOUNT_CONFLICT: 422,
  MOUNT_TOO_LARGE: 422,
  NETWORK_FULL: 429,
  NETWORK_NOT_AVAILABLE: 501,
  NOT_FOUND: 404,
  OPTION_NOT_AT_LEVEL: 422,
  PAUSE_NOT_AVAILABLE: 501,
  POD_AMBIGUOUS: 409,
  POD_NAME_TAKEN: 409,
  POD_STATE_CONFLICT: 409,
  PORT_NOT_PERMITTED: 403,
  ULIMIT_NOT_PERMITTED: 403,
  PORT_TAKEN: 409,
  POLICY_DENIED: 403,
  POLICY_ERROR: 403,
  PROCESSES_UNAVAILABLE: 502,
  QUOTA_EXCEEDED: 429,
  REGISTRY_ADDRESS_FORBIDDEN: 422,
  REGISTRY_REFUSED: 422,
  REGISTRY_UNAVAILABLE: 502,
  REQUEST_TIMEOUT: 408,
  RESIZE_FAILED: 502,
  RESIZE_UNCONFIRMED: 504,
  RESTART_NEEDS_OPEN_REGISTRY: 422,
  SCRATCH_SHRINK: 422,
  SCRATCH_TOO_LARGE: 422,
  SECRET_NOT_FOUND: 404,
  SHUTTING_DOWN: 503,
  SIGNING_KEY_INVALID: 422,
  SPAWN_UNAVAILABLE: 503,
  SYSCTL_NOT_PERMITTED: 403,
  TENANT_EXISTS: 409,
  TENANT_IN_USE: 409,
  TENANT_SUSPENDED: 403,
  TOO_MANY_REQUESTS: 429,
  UNAUTHENTICATED: 401,
  UNSUPPORTED_MEDIA_TYPE: 415,
  WAIT_ENDED: 409,
  VOLUME_BUSY: 409,
  VOLUME_EXISTS: 409,
  VOLUME_HAS_SNAPSHOTS: 409,
  VOLUME_IN_USE: 409,
  VOLUME_SHRINK: 422,
  VOLUME_UNKNOWN: 422,
  VOLUME_VM_ONLY: 409,
  WAIT_TIMEOUT: 408,
}

export class ApiError extends Error {
  override readonly name = 'ApiError'
  readonly code: ApiCode
  readonly facts: Facts
  constructor(code: ApiCode, sentence: string, facts: Facts = {}, options: ErrorOptions = {}) {
    super(sentence, options)
    this.code = code
    this.facts = facts
  }
}

/**
 * The one 404 there is. It says nothing of what was asked for, so that another tenant's thing and
 * no thing at all are the same bytes.
 */
export const notFound = (): ApiError =>
  new ApiError('NOT_FOUND', 'There is no such thing, or it is not yours.')

/** The wire form, RFC 9457 section 3, with our members after its own. */
export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly code: ErrorCode
  readonly facts: Facts
  /** Policies that caused a refusal; empty for everything else. */
  readonly policies: readonly string[]
}

/** An error that may leave as it is. */
export type PublicError = ApiError | Refusal | ImageError

/** `IMAGE_UNSIGNED` as `Image unsigned`. */
const titleOf = (code: ErrorCode): string =>
  code.charAt(0) + code.slice(1).toLowerCase().replaceAll('_', ' ')

export function problemOf(error: PublicError): Problem {
  return {
    type: `urn:casemate:problem:${error.code.toLowerCase().replaceAll('_', '-')}`,
    title: titleOf(error.code),
    status: STATUSES[error.code],
    detail: error.message,
    code: error.code,
    facts: error instanceof ImageError ? {} : error.facts,
    policies: error instanceof Refusal ? error.policyIds : [],
  }
}

/** What errors of tenants/ are to a caller; null is a fault of ours, and its words stay inside. */
const tenantsCodes: Readonly<Record<TenantsErrorCode, ApiCode | null>> = {
  TENANT_NOT_FOUND: 'NOT_FOUND',
  TENANT_EXISTS: 'TENANT_EXISTS',
  TENANT_IN_USE: 'TENANT_IN_USE',
  OPERATOR_ONLY: 'FORBIDDEN',
  POD_NOT_FOUND: 'NOT_FOUND',
  POD_EXISTS: null,
  POD_NAME_TAKEN: 'POD_NAME_TAKEN',
  POD_AMBIGUOUS: 'POD_AMBIGUOUS',
  POD_STATE_CONFLICT: 'POD_STATE_CONFLICT',
  FILE_EXISTS: 'FILE_EXISTS',
  FILES_FULL: 'FILES_FULL',
  FILE_KEY_UNSAFE: null,
  TOKEN_TOO_LARGE: 'UNAUTHENTICATED',
  TOKEN_INVALID: 'UNAUTHENTICATED',
  TOKEN_EXPIRED: 'UNAUTHENTICATED',
  TOKEN_REVOKED: 'UNAUTHENTICATED',
  TOKEN_KEY_UNSAFE: null,
  IDEMPOTENCY_KEY_REUSED: 'IDEMPOTENCY_KEY_REUSED',
  IDEMPOTENCY_IN_FLIGHT: 'IDEMPOTENCY_IN_FLIGHT',
  STORE_NEWER: null,
  STORE_FOREIGN: null,
  STORE_CORRUPT: null,
}

/** Fastify's own errors, by their code; another 4xx of its is BAD_REQUEST. */
const frameworkCodes: Readonly<Record<string, ApiCode>> = {
  ERR_HTTP_REQUEST_TIMEOUT: 'REQUEST_TIMEOUT',
  FST_ERR_CTP_BODY_TOO_LARGE: 'BODY_TOO_LARGE',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'UNSUPPORTED_MEDIA_TYPE',
}

function fromTenants(error: TenantsError): ApiError {
  const code = tenantsCodes[error.code]
  if (code === null) return internal(error)
  if (code === 'NOT_FOUND') return notFound()
  if (code !== 'UNAUTHENTICATED') return new ApiError(code, error.message, error.facts)
  // One sentence for every reason: who guesses tokens learns nothing from the answer.
  const sentence = 'The access token is not valid here and now. Issue a new one.'
  return new ApiError(code, sentence, {}, { cause: error })
}

function fromFramework(error: Error): ApiError | null {
  const code: unknown = Reflect.get(error, 'code')
  const status: unknown = Reflect.get(error, 'statusCode')
  const known = typeof code === 'string' ? frameworkCodes[code] : undefined
  if (known !== undefined) return new ApiError(known, error.message, {}, { cause: error })
  const callers = typeof status === 'number' && status >= 400 && status < 500
  return callers ? new ApiError('BAD_REQUEST', error.message, {}, { cause: error }) : null
}

/** What a caller wrote and a parser refused. */
const badInput = [BadNoun, BadDocument, RecordTooLarge] as const

const sentenceOf = (message: string): string => message.charAt(0).toUpperCase() + message.slice(1)

/** The path stays inside: it is the host's business. */
function auditUnavailable(cause: AuditUnavailable): ApiError {
  const sentence =
    'The audit log cannot be written, and nothing is launched without a record. The operator can see why.'
  return new ApiError(
    'AUDIT_UNAVAILABLE',
    sentence,
    { errno: cause.errno, since: cause.since },
    { cause },
  )
}

function internal(cause: unknown): ApiError {
  const sentence = 'Something went wrong here; the agent’s own log has the reason.'
  return new ApiError('INTERNAL', sentence, {}, { cause })
}

/**
 * Any error as one that may leave: ours as they are, the framework's by their meaning, and every
 * other as INTERNAL without its words, which may hold what the caller must not see.
 */
export function publicError(error: unknown): PublicError {
  if (error instanceof ApiError || error instanceof Refusal || error instanceof ImageError) {
    return error
  }
  if (error instanceof TenantsError) return fromTenants(error)
  if (error instanceof AuditUnavailable) return auditUnavailable(error)
  if (!(error instanceof Error)) return internal(error)
  if (badInput.some((kind) => error instanceof kind)) {
    return new ApiError('BAD_REQUEST', `${sentenceOf(error.message)}.`, {}, { cause: error })
  }
  return fromFramework(error) ?? internal(error)
}

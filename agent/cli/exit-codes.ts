/** Exit codes of the CLI: a contract for scripts. `run` in the foreground has the pod's instead. */
import type { ErrorCode } from '../errors.ts'

export const EXIT = {
  ok: 0,
  error: 1,
  usage: 2,
  notFound: 3,
  denied: 4,
  verification: 5,
  authentication: 6,
  conflict: 7,
  capacity: 8,
  isolation: 9,
  tampered: 10,
  unreachable: 69,
  timeout: 124,
  /** `run`: Casemate failed or refused, not the pod; as docker's. */
  notRun: 125,
} as const

const codes: Readonly<Record<ErrorCode, number>> = {
  AUDIT_UNAVAILABLE: EXIT.error,
  BAD_REQUEST: EXIT.usage,
  BODY_TOO_LARGE: EXIT.usage,
  CAPABILITY_NOT_PERMITTED: EXIT.denied,
  FORBIDDEN: EXIT.authentication,
  HOST_FULL: EXIT.capacity,
  IDEMPOTENCY_IN_FLIGHT: EXIT.conflict,
  IDEMPOTENCY_KEY_MISSING: EXIT.usage,
  IDEMPOTENCY_KEY_REUSED: EXIT.conflict,
  IMAGE_BUILD_FAILED: EXIT.error,
  IMAGE_BUSY: EXIT.capacity,
  IMAGE_CONFIG_INVALID: EXIT.denied,
  IMAGE_DIGEST_MISMATCH: EXIT.verification,
  IMAGE_LAYER_INVALID: EXIT.verification,
  IMAGE_MANIFEST_INVALID: EXIT.verification,
  IMAGE_NOT_PERMITTED: EXIT.denied,
  IMAGE_PLATFORM_MISSING: EXIT.error,
  IMAGE_REFERENCE_INVALID: EXIT.usage,
  IMAGE_SIGNATURE_MISMATCH: EXIT.verification,
  IMAGE_SIGNER_NOT_ACCEPTED: EXIT.verification,
  IMAGE_TOO_LARGE: EXIT.verification,
  IMAGE_UNKNOWN: EXIT.notFound,
  IMAGE_UNSIGNED: EXIT.verification,
  INTERNAL: EXIT.error,
  ISOLATION_NOT_AVAILABLE: EXIT.isolation,
  ISOLATION_NOT_PERMITTED: EXIT.denied,
  ISOLATION_UNAVAILABLE: EXIT.isolation,
  LAUNCH_FAILED: EXIT.error,
  NOT_FOUND: EXIT.notFound,
  POD_STATE_CONFLICT: EXIT.conflict,
  POLICY_DENIED: EXIT.denied,
  POLICY_ERROR: EXIT.denied,
  QUOTA_EXCEEDED: EXIT.capacity,
  REGISTRY_ADDRESS_FORBIDDEN: EXIT.denied,
  REGISTRY_REFUSED: EXIT.authentication,
  REGISTRY_UNAVAILABLE: EXIT.error,
  REQUEST_TIMEOUT: EXIT.error,
  SHUTTING_DOWN: EXIT.unreachable,
  SIGNING_KEY_INVALID: EXIT.usage,
  SPAWN_UNAVAILABLE: EXIT.isolation,
  TENANT_EXISTS: EXIT.conflict,
  TENANT_SUSPENDED: EXIT.denied,
  TOO_MANY_REQUESTS: EXIT.capacity,
  UNAUTHENTICATED: EXIT.authentication,
  UNSUPPORTED_MEDIA_TYPE: EXIT.usage,
  WAIT_TIMEOUT: EXIT.timeout,
}

const isKnown = (code: string): code is ErrorCode => Object.hasOwn(codes, code)

/** The exit code for a problem's code; another version's unknown code is an error. */
export const exitCodeOf = (code: string): number => (isKnown(code) ? codes[code] : EXIT.error)

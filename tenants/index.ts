/** What the tenants folder offers. */
export { TENANTS_ERROR_CODES, TenantsError, type TenantsErrorCode } from './errors.ts'
export type { EventScope } from './events.ts'
export {
  EXCEPTION_MS_MAX,
  type NewException,
  parseExceptionEnd,
  parseExceptionReason,
  type StoredException,
} from './host-exception.ts'
export { DATABASE_FILE, openTenants, type TenantsConfig } from './open.ts'
export {
  isOver,
  POD_JSON_BYTES_MAX,
  type Pod,
  type PodChanges,
  type PodProblem,
  type Restart,
} from './pod.ts'
export { isFinal, POD_STATES, type PodState, parsePodState } from './pod-state.ts'
export {
  type Caller,
  type OperatorScope,
  operatorFromPeer,
  systemScope,
  type TenantScope,
} from './scope.ts'
export type { DrainCounts, HostDrain } from './store/drain.ts'
export type { EndedPod } from './store/ended.ts'
export { EVENTS_KEPT, type NewEvent, type StoredEvent } from './store/events.ts'
export {
  type Answer,
  type Created,
  IDEMPOTENCY_MS,
  type IdempotencyKey,
  type NewPod,
  type PodAbout,
  parseIdempotencyKey,
  RESPONSE_BYTES_MAX,
} from './store/requests.ts'
export type { BegunRestart, ToldToStop } from './store/restarts.ts'
export type { TenantChanges } from './store/tenants.ts'
export type { IssuedToken } from './store/tokens.ts'
export {
  type SealedFile,
  STORED_BYTES_MAX,
  STORED_FILES_MAX,
  type StoredFile,
} from './stored-file.ts'
export type { NewFile } from './stored-files.ts'
export {
  DEFAULT_QUOTA_LIMITS,
  type NewTenant,
  parseDisplay,
  parseQuotaLimits,
  type QuotaLimits,
  type Tenant,
  type TenantState,
} from './tenant.ts'
export { type NewToken, type Page, Tenants } from './tenants.ts'
export {
  type IdentityName,
  parseIdentityName,
  TOKEN_BYTES_MAX,
  TOKEN_MS_DEFAULT,
  TOKEN_MS_MAX,
} from './tokens/authority.ts'

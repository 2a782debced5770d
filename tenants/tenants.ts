/**
 * The tenants of one host: the only door to the store. It adds the clock and the token key, and
 * takes a scope for everything that belongs to a tenant.
 */
import type {
  ExceptableId,
  PodId,
  PodName,
  PodPlace,
  TenantFacts,
  TenantId,
} from '../policy/index.ts'
import { Drains } from './drains.ts'
import { TenantsError } from './errors.ts'
import { Events } from './events.ts'
import type { NewException, StoredException } from './host-exception.ts'
import type { Pod, PodChanges } from './pod.ts'
import type { PodState } from './pod-state.ts'
import {
  type Caller,
  type OperatorScope,
  operatorScope,
  type TenantScope,
  tenantScope,
} from './scope.ts'
import { deleteTenant, selectLeft } from './store/delete-tenant.ts'
import { selectOld, selectSurplus } from './store/ended.ts'
import type { FileKey } from './store/file-key.ts'
import { deleteException, putException, selectExceptions } from './store/host-exceptions.ts'
import { findPod, renamePod } from './store/names.ts'
import {
  deletePod,
  movePod,
  notePod,
  selectPod,
  selectPods,
  selectUnfinished,
} from './store/pods.ts'
import { reserve, type Wanted } from './store/quota.ts'
import {
  type Answer,
  answerRequest,
  type Created,
  createPod,
  type NewPod,
  releaseRequest,
  selectUnanswered,
} from './store/requests.ts'
import {
  type BegunRestart,
  beginRestart,
  type DueMost,
  selectDue,
  selectStarts,
  type ToldToStop,
  tellToStop,
} from './store/restarts.ts'
import type { Store } from './store/tables.ts'
import {
  insertTenant,
  selectTenant,
  selectTenants,
  type TenantChanges,
  updateTenant,
} from './store/tenants.ts'
import { type IssuedToken, insertToken, isLive, revokeToken, selectTokens } from './store/tokens.ts'
import { StoredFiles } from './stored-files.ts'
import type { NewTenant, Tenant } from './tenant.ts'
import {
  type IdentityName,
  readToken,
  signToken,
  TOKEN_MS_DEFAULT,
  type TokenAuthority,
} from './tokens/authority.ts'

export interface TenantsParts {
  readonly store: Store
  readonly authority: TokenAuthority
  /** What configs and secrets are encrypted with. */
  readonly fileKey: FileKey
  /** ms since 1970. */
  readonly now: () => number
}

export interface NewToken {
  readonly jti: string
  /** Shown once; only its jti is kept. */
  readonly token: string
  readonly subject: string
  readonly expiresMs: number
}

/** A page of a listing; `limit` 1 to 1000. */
export interface Page<Cursor> {
  readonly limit: number
  readonly cursor: Cursor | null
}

export class Tenants {
  /** Configs and secrets. */
  readonly files: StoredFiles
  readonly #store: Store
  readonly #authority: TokenAuthority
  readonly #now: () => number
  readonly events: Events
  readonly drains: Drains

  constructor({ store, authority, fileKey, now }: TenantsParts) {
    this.#store = store
    this.events = new Events(store)
    this.drains = new Drains(store, now)
    this.#authority = authority
    this.files = new StoredFiles({ store, key: fileKey, now })
    this.#now = now
  }

  /**
   * The scope for a tenant that exists and that the caller may use.
   * @throws TenantsError TENANT_NOT_FOUND, the same for both
   */
  async scope(caller: Caller, tenant: TenantId): Promise<TenantScope> {
    const scope = tenantScope(caller, tenant)
    await selectTenant(this.#store, tenant)
    return scope
  }

  /** @throws TenantsError OPERATOR_ONLY */
  operator(caller: Caller): OperatorScope {
    return operatorScope(caller)
  }

  /**
   * @param record puts it on record; when it throws there is no such tenant
   * @throws TenantsError TENANT_EXISTS; BadNoun; what `record` throws
   */
  async createTenant(
    _operator: OperatorScope,
    tenant: NewTenant,
    record: (tenant: Tenant) => Promise<unknown>,
  ): Promise<Tenant> {
    return await this.#store.transaction().execute(async (transaction) => {
      const made = await insertTenant(transaction, tenant, this.#now())
      await record(made)
      return made
    })
  }

  async getTenant(scope: TenantScope): Promise<Tenant> {
    return await selectTenant(this.#store, scope.tenant)
  }

  /** By id; the cursor is the last id of the page before. */
  async listTenants(_operator: OperatorScope, page: Page<TenantId>): Promise<readonly Tenant[]> {
    return await selectTenants(this.#store, { limit: limitOf(page), after: page.cursor })
  }

  /**
   * Launches decided before run on, and so do pods.
   * @param record puts it on record; when it throws nothing is changed
   * @throws TenantsError TENANT_NOT_FOUND; BadNoun; what `record` throws
   */
  async changeTenant(
    _operator: OperatorScope,
    tenant: TenantId,
    changes: TenantChanges,
    record: (tenant: Tenant) => Promise<unknown>,
  ): Promise<Tenant> {
    return await this.#store.transaction().execute(async (transaction) => {
      const changed = await updateTenant(transaction, tenant, changes)
      await record(changed)
      return changed
    })
  }

  /** Starts of a tenant that may be deleted. @throws TenantsError TENANT_NOT_FOUND, TENANT_IN_USE */
  async leftPods(_operator: OperatorScope, tenant: TenantId): ReturnType<typeof selectLeft> {
    return await selectLeft(this.#store, tenant)
  }

  /**
   * @param record puts it on record and removes its files; when it throws no row is deleted
   * @throws TenantsError TENANT_NOT_FOUND, TENANT_IN_USE; what `record` throws
   */
  async deleteTenant(
    _operator: OperatorScope,
    tenant: TenantId,
    record: () => Promise<unknown>,
  ): Promise<void> {
    await this.#store.transaction().execute(async (transaction) => {
      await deleteTenant(transaction, tenant)
      await record()
    })
  }

  /** What a decision has to know of the tenant. */
  async facts(scope: TenantScope): Promise<TenantFacts> {
    const { id, trust, state, imageRule, quotas, egress, ports } = await this.getTenant(scope)
    return { id, trust, suspended: state === 'suspended', imageRule, quotas, egress, ports }
  }

  /** Signs a token and writes its jti down; the row is there before the token is shown. */
  async issueToken(
    _operator: OperatorScope,
    scope: TenantScope,
    wanted: { readonly name: IdentityName; readonly lifetimeMs: number | null },
  ): Promise<NewToken> {
    const { tenant } = scope
    const issuedMs = this.#now()
    const lifetimeMs = wanted.lifetimeMs ?? TOKEN_MS_DEFAULT
    const grant = { tenant, name: wanted.name, issuedMs, lifetimeMs }
    const { jti, token, subject, expiresMs } = await signToken(this.#authority, grant)
    const row = { jti, name: wanted.name, issuedMs, expiresMs, revokedMs: null }
    await insertToken(this.#store, scope, row)
    return { jti, token, subject, expiresMs }
  }

  /** @throws TenantsError TOKEN_TOO_LARGE, TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED */
  async verifyToken(token: string): Promise<Extract<Caller, { kind: 'tenant' }>> {
    const claims = await readToken(this.#authority, token, this.#now())
    if (!(await isLive(this.#store, claims.tenant, claims.jti))) {
      throw new TenantsError('TOKEN_REVOKED', 'The access token was revoked. Get a new one.')
    }
    return { kind: 'tenant', ...claims }
  }

  async listTokens(scope: TenantScope): Promise<readonly IssuedToken[]> {
    return await selectTokens(this.#store, scope)
  }

  /** true when the token was live until now. */
  async revokeToken(scope: TenantScope, jti: string): Promise<boolean> {
    return await revokeToken(this.#store, scope, jti, this.#now())
  }

  /** A pod in state `requested`, or the answer to the same request when it was sent before. */
  async createPod(scope: TenantScope, pod: NewPod): Promise<Created> {
    return await createPod(this.#store, scope, pod, this.#now())
  }

  /** Keeps the answer to a pod's request, for the same request sent again. */
  async answerRequest(scope: TenantScope, pod: PodId, answer: Answer): Promise<void> {
    await answerRequest(this.#store, scope, pod, answer)
  }

  /** Forgets a pod's request that has no answer: sent again it is a new one. */
  async releaseRequest(scope: TenantScope, pod: PodId): Promise<void> {
    await releaseRequest(this.#store, scope, pod)
  }

  async unansweredRequests(): ReturnType<typeof selectUnanswered> {
    return await selectUnanswered(this.#store)
  }

  /**
   * Reserves what a launch wants to hold; answers its place on the tenant's network, or null without one.
   * @throws Refusal QUOTA_EXCEEDED, TENANT_SUSPENDED, NETWORK_FULL, PORT_TAKEN; TenantsError POD_STATE_CONFLICT
   */
  async reserve(scope: TenantScope, pod: PodId, wanted: Wanted): Promise<PodPlace | null> {
    return await reserve(this.#store, scope, pod, wanted)
  }

  async getPod(scope: TenantScope, pod: PodId): Promise<Pod> {
    return await selectPod(this.#store, scope, pod)
  }

  /** All starts that are kept of the pod which the id of one of them names, the first first. @throws TenantsError POD_NOT_FOUND */
  async listStarts(scope: TenantScope, pod: PodId): ReturnType<typeof selectStarts> {
    return await selectStarts(this.#store, scope, pod)
  }

  /** The pod's newest start, which says how the pod is. @throws TenantsError POD_NOT_FOUND */
  async newestStart(scope: TenantScope, pod: PodId): Promise<Pod> {
    const starts = await this.listStarts(scope, pod)
    return starts.at(-1) ?? starts[0]
  }

  /**
   * The newest start of the pod that has the name, or the id, or begins so and is the only one.
   * @throws TenantsError POD_NOT_FOUND, POD_AMBIGUOUS
   */
  async findPod(scope: TenantScope, meant: string): Promise<Pod> {
    return await findPod(this.#store, scope, meant)
  }

  /** @throws TenantsError POD_NOT_FOUND, POD_NAME_TAKEN */
  async renamePod(scope: TenantScope, pod: PodId, name: PodName): Promise<Pod> {
    return await renamePod(this.#store, scope, { pod, name })
  }

  /** No rule starts the pod again from here on. @throws TenantsError POD_NOT_FOUND */
  async tellToStop(scope: TenantScope, pod: PodId): Promise<ToldToStop> {
    return await tellToStop(this.#store, scope, pod)
  }

  /** Pods of all tenants that are to be started again by now. */
  async duePods(most: DueMost): ReturnType<typeof selectDue> {
    return await selectDue(this.#store, this.#now(), most)
  }

  /** The next start of a due pod, in state `requested`; null when it is not due any more. */
  async beginRestart(scope: TenantScope, previous: PodId, id: PodId): Promise<BegunRestart | null> {
    return await beginRestart(this.#store, scope, { previous, id, nowMs: this.#now() })
  }

  /** The newest start of each pod, the newest pod first; the cursor is the last pod's id of the page before. */
  async listPods(scope: TenantScope, page: Page<PodId>): Promise<readonly Pod[]> {
    return await selectPods(this.#store, scope, { limit: limitOf(page), before: page.cursor })
  }

  /** Pods of all tenants that have not ended, for reconcile. */
  async unfinishedPods(): ReturnType<typeof selectUnfinished> {
    return await selectUnfinished(this.#store)
  }

  /** Pods of all tenants that ended for good at that time or before, ms since 1970, the oldest first. */
  async oldPods(untilMs: number, limit: number): ReturnType<typeof selectOld> {
    return await selectOld(this.#store, { untilMs, limit })
  }

  /** Ended starts of all tenants beyond the `keep` newest of each. */
  async surplusPods(keep: number, limit: number): ReturnType<typeof selectSurplus> {
    return await selectSurplus(this.#store, { keep, limit })
  }

  /**
   * Moves a pod to its next state; a final one releases its reservation, once.
   * @throws TenantsError POD_NOT_FOUND, POD_STATE_CONFLICT
   */
  async movePod(
    scope: TenantScope,
    pod: PodId,
    to: PodState,
    changes: PodChanges = {},
  ): Promise<Pod> {
    return await movePod(this.#store, scope, pod, { to, changes, nowMs: this.#now() })
  }

  /** Writes facts of a pod that has not ended. */
  async notePod(scope: TenantScope, pod: PodId, changes: PodChanges): Promise<Pod> {
    return await notePod(this.#store, scope, pod, changes)
  }

  /** @throws TenantsError POD_NOT_FOUND, POD_STATE_CONFLICT while it has not ended */
  async deletePod(scope: TenantScope, pod: PodId): Promise<void> {
    await deletePod(this.#store, scope, pod)
  }

  /**
   * Records an exception for a finding of the host, in place of an earlier one.
   * @param record puts it on record and gives the index; when it throws nothing is changed
   * @throws what `record` throws
   */
  async addHostException(
    { identity }: OperatorScope,
    exception: NewException,
    record: () => Promise<number>,
  ): Promise<StoredException> {
    return await this.#store.transaction().execute(async (transaction) => {
      const stored = { ...exception, identity, createdMs: this.#now(), record: await record() }
      await putException(transaction, stored)
      return stored
    })
  }

  /** true when there was one. */
  async removeHostException(_operator: OperatorScope, finding: ExceptableId): Promise<boolean> {
    return await deleteException(this.#store, finding)
  }

  /** All, also those whose time is over. */
  async hostExceptions(): Promise<readonly StoredException[]> {
    return await selectExceptions(this.#store)
  }

  /** Those in force now. */
  async activeHostExceptions(): Promise<readonly StoredException[]> {
    const all = await selectExceptions(this.#store)
    return all.filter(({ untilMs }) => untilMs > this.#now())
  }

  async close(): Promise<void> {
    await this.#store.destroy()
  }
}

const PAGE_MAX = 1000

function limitOf(page: { readonly limit: number }): number {
  if (Number.isInteger(page.limit) && page.limit >= 1 && page.limit <= PAGE_MAX) return page.limit
  throw new RangeError(`a page holds 1 to ${PAGE_MAX} items`)
}

/** One question to the policies, in our words, and its translation into Cedar's. */
import type {
  CedarValueJson,
  EntityJson,
  StatefulAuthorizationCall,
  TypeAndId,
} from '@cedar-policy/cedar-wasm/nodejs'
import type { ResolvedImage } from '../image-verdict.ts'
import type { Capability } from '../nouns/capability.ts'
import type { FileName, StoredKind } from '../nouns/file.ts'
import type { IsolationLevel } from '../nouns/isolation.ts'
import type { MemoryMib, Vcpus } from '../nouns/machine.ts'
import type { PodId } from '../nouns/pod.ts'
import type { TenantId, Trust } from '../nouns/tenant.ts'
import type { VolumeName, VolumeOperation } from '../nouns/volume.ts'

/** Who asks: an identity of a tenant, or an operator of the host. */
export type Principal =
  | { readonly kind: 'tenant'; readonly tenant: TenantId; readonly subject: string }
  | { readonly kind: 'operator'; readonly uid: number }

export interface LaunchQuery {
  readonly principal: Principal
  readonly tenant: {
    readonly id: TenantId
    readonly trust: Trust
    readonly suspended: boolean
    /** Levels below vm that the root-owned level file grants the tenant. */
    readonly levels: readonly IsolationLevel[]
  }
  readonly pod: PodId
  readonly isolation: IsolationLevel
  readonly image: ResolvedImage
  readonly signature: { readonly accepted: boolean; readonly keyIds: readonly string[] }
  readonly capabilities: readonly Capability[]
  readonly vcpus: Vcpus
  readonly memoryMib: MemoryMib
  readonly readOnlyRoot: boolean
  /** Names of parameters of the kernel that it sets. */
  readonly sysctls: readonly string[]
  /** Files of the tenant's that it gets, as `secret/NAME`. */
  readonly files: readonly string[]
}

/** One more process in a running pod. */
export interface ExecQuery {
  readonly principal: Principal
  readonly tenant: Pick<LaunchQuery['tenant'], 'id' | 'trust' | 'suspended'>
  readonly pod: PodId
  /** Empty: an errand. */
  readonly program: string
  /** What our own code does in place of a program, as `copy-in`; empty: a program. */
  readonly errand: string
  /** Empty: the app's. */
  readonly user: string
  readonly terminal: boolean
}

export const FILE_ACTIONS = ['store_file', 'show_file', 'remove_file'] as const

/** Something is to be done with a config or secret of a tenant's. */
export interface FileQuery {
  readonly principal: Principal
  readonly tenant: Pick<LaunchQuery['tenant'], 'id' | 'trust' | 'suspended'>
  readonly action: (typeof FILE_ACTIONS)[number]
  readonly kind: StoredKind
  readonly name: FileName
}

/** Something done with a volume, or with a snapshot of it. */
export interface VolumeQuery {
  readonly principal: Principal
  readonly tenant: Pick<LaunchQuery['tenant'], 'id' | 'trust' | 'suspended'>
  readonly volume: VolumeName
  readonly operation: VolumeOperation
  /** Bytes that it is to have; 0 where the operation says nothing of that. */
  readonly sizeBytes: number
}

const uid = (type: string, id: string): TypeAndId => ({ type: `Casemate::${type}`, id })
const reference = (type: string, id: string): CedarValueJson => ({ __entity: uid(type, id) })
const level = (one: IsolationLevel): CedarValueJson => reference('IsolationLevel', one)

const principalUid = (principal: Principal): TypeAndId =>
  principal.kind === 'tenant'
    ? uid('Caller', principal.subject)
    : uid('Operator', String(principal.uid))

/** The call but for the names of the preparsed policy set and schema. */
export type CedarCall = Omit<StatefulAuthorizationCall, 'preparsedPolicySetId'>

export function toCedarCall(query: LaunchQuery): CedarCall {
  return {
    principal: principalUid(query.principal),
    action: uid('Action', 'launch'),
    resource: uid('Pod', query.pod),
    context: {
      isolation: level(query.isolation),
      image: {
        registry: query.image.registry,
        repository: query.image.repository,
        digest: query.image.digest,
      },
      signature: { accepted: query.signature.accepted, keys: [...query.signature.keyIds] },
      capabilities: [...query.capabilities],
      vcpus: query.vcpus,
      memory_mib: query.memoryMib,
      read_only_root: query.readOnlyRoot,
      sysctls: [...query.sysctls],
      files: [...query.files],
    },
    entities: entitiesOf({ ...query, resource: uid('Pod', query.pod) }),
  }
}

export const toExecCall = (query: ExecQuery): CedarCall => ({
  principal: principalUid(query.principal),
  action: uid('Action', 'exec'),
  resource: uid('Pod', query.pod),
  context: {
    program: query.program,
    errand: query.errand,
    user: query.user,
    terminal: query.terminal,
  },
  entities: entitiesOf({
    ...query,
    tenant: { ...query.tenant, levels: [] },
    resource: uid('Pod', query.pod),
  }),
})

export function toFileCall({ principal, tenant, action, kind, name }: FileQuery): CedarCall {
  const resource = uid('StoredFile', `${tenant.id}/${kind}/${name}`)
  const context = { kind, name }
  const entities = entitiesOf({ principal, tenant: { ...tenant, levels: [] }, resource })
  return {
    principal: principalUid(principal),
    action: uid('Action', action),
    resource,
    context,
    entities,
  }
}

export function toVolumeCall({ principal, tenant, ...query }: VolumeQuery): CedarCall {
  // No tenant's id has a slash, so no two volumes are one entity.
  const resource = uid('Volume', `${tenant.id}/${query.volume}`)
  return {
    principal: principalUid(principal),
    action: uid('Action', 'volume'),
    resource,
    context: { operation: query.operation, size_bytes: query.sizeBytes },
    entities: entitiesOf({ principal, tenant: { ...tenant, levels: [] }, resource }),
  }
}

/**
 * All entities that a policy can reach. An absent one is not an empty one: reading an attribute of
 * it is an error, and Cedar skips a forbid that errors.
 */
function entitiesOf({
  principal,
  tenant,
  resource,
}: Pick<LaunchQuery, 'principal' | 'tenant'> & { readonly resource: TypeAndId }): EntityJson[] {
  const entities: EntityJson[] = [
    {
      uid: uid('Tenant', tenant.id),
      attrs: {
        trust: reference('Trust', tenant.trust),
        suspended: tenant.suspended,
        levels: tenant.levels.map(level),
      },
      parents: [],
    },
    {
      uid: resource,
      attrs: { tenant: reference('Tenant', tenant.id) },
      parents: [],
    },
    {
      uid: principalUid(principal),
      attrs: principal.kind === 'tenant' ? { tenant: reference('Tenant', principal.tenant) } : {},
      parents: [],
    },
  ]
  if (principal.kind === 'tenant' && principal.tenant !== tenant.id) {
    // A stranger's tenant: nothing of it counts here, so it gets the facts that grant least.
    entities.push({
      uid: uid('Tenant', principal.tenant),
      attrs: { trust: reference('Trust', 'untrusted'), suspended: true, levels: [] },
      parents: [],
    })
  }
  return entities
}

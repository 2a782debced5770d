/**
 * Configs and secrets of a tenant: decided, and on record before they are there or gone. The record has a version that
 * is random, and no digest: from one a short secret could be guessed. Nothing here shows a secret again.
 */
import {
  FILE_BYTES_MAX,
  type FileName,
  type FileQuery,
  refusedFile,
  type StoredKind,
} from '../../policy/index.ts'
import type { Caller, SealedFile, StoredFile, TenantScope } from '../../tenants/index.ts'
import { ApiError, notFound } from '../errors.ts'
import type { ChangeBudget } from './changes.ts'
import type { Ports } from './ports.ts'
import { actorOf, type Origin, refusalFacts } from './record-parts.ts'

export interface StoredFilePorts extends Pick<Ports, 'audit' | 'clock' | 'policies' | 'tenants'> {
  readonly changes: ChangeBudget
}

export interface FileCall {
  readonly scope: TenantScope
  readonly caller: Caller
  readonly origin: Origin
  readonly kind: StoredKind
  readonly name: FileName
}

/** @throws Refusal, which is on record; AuditUnavailable */
async function permit(
  ports: StoredFilePorts,
  { scope, caller, origin, kind, name }: FileCall,
  action: FileQuery['action'],
): Promise<void> {
  const { id, trust, suspended } = await ports.tenants.facts(scope)
  const query = { principal: caller, tenant: { id, trust, suspended }, action, kind, name }
  const refusal = refusedFile(query, ports.policies)
  if (refusal === null) return
  ports.changes.spend(scope.tenant)
  await ports.audit.append({
    type: 'file.refused',
    tenant: scope.tenant,
    actor: actorOf(caller, origin),
    refusal: refusalFacts(refusal),
  })
  throw refusal
}

/** @throws Refusal; ApiError TOO_MANY_REQUESTS; TenantsError FILE_EXISTS, FILES_FULL; AuditUnavailable */
export async function storeFile(
  ports: StoredFilePorts,
  call: FileCall,
  content: Uint8Array,
): Promise<SealedFile> {
  if (content.length > FILE_BYTES_MAX) {
    const sentence = `A ${call.kind} has at most ${FILE_BYTES_MAX} bytes. Give what is larger to the image, or to a volume.`
    throw new ApiError('BODY_TOO_LARGE', sentence)
  }
  await permit(ports, call, 'store_file')
  ports.changes.spend(call.scope.tenant)
  const { scope, caller, origin, kind, name } = call
  const version = ports.clock.uuid()
  return await ports.tenants.files.add(scope, { kind, name, version, content }, ({ keyId: key }) =>
    ports.audit.append({
      type: 'file.stored',
      tenant: scope.tenant,
      actor: actorOf(caller, origin),
      kind,
      name,
      version,
      key,
    }),
  )
}

/** @throws ApiError NOT_FOUND */
async function found(ports: StoredFilePorts, call: FileCall): Promise<StoredFile> {
  const file = await ports.tenants.files.find(call.scope, call.kind, call.name)
  if (file === null) throw notFound()
  return file
}

/** What may be shown; the content of a config, and of a secret none. @throws Refusal; ApiError NOT_FOUND */
export async function showFile(
  ports: StoredFilePorts,
  call: FileCall,
): Promise<{ readonly file: StoredFile; readonly content: Uint8Array | null }> {
  await permit(ports, call, 'show_file')
  const file = await found(ports, call)
  if (call.kind === 'secret') return { file, content: null }
  const content = await ports.tenants.files.open(file)
  if (content === null) throw notFound()
  return { file, content }
}

/** Pods that have it keep it. @throws Refusal; ApiError NOT_FOUND, TOO_MANY_REQUESTS; AuditUnavailable */
export async function removeFile(ports: StoredFilePorts, call: FileCall): Promise<void> {
  await permit(ports, call, 'remove_file')
  const file = await found(ports, call)
  ports.changes.spend(call.scope.tenant)
  const { scope, caller, origin, kind, name } = call
  const removed = await ports.tenants.files.remove(file, () =>
    ports.audit.append({
      type: 'file.removed',
      tenant: scope.tenant,
      actor: actorOf(caller, origin),
      kind,
      name,
      version: file.version,
    }),
  )
  if (!removed) throw notFound()
}

/** The stored_files table: configs and secrets, encrypted. */
import {
  type FileName,
  parseFileName,
  parseTenantId,
  STORED_KINDS,
  type StoredKind,
} from '../../policy/index.ts'
import { TenantsError } from '../errors.ts'
import { type TenantScope, tenantNotFound } from '../scope.ts'
import {
  type SealedFile,
  STORED_BYTES_MAX,
  STORED_FILES_MAX,
  type StoredFile,
} from '../stored-file.ts'
import { readRow } from './rows.ts'
import type { Store, StoredFileRow } from './tables.ts'

function kindOf(text: string): StoredKind {
  const kind = STORED_KINDS.find((known) => known === text)
  if (kind === undefined) throw new TypeError('no kind of stored file')
  return kind
}

const ABOUT = [
  'tenant',
  'kind',
  'name',
  'version',
  'size',
  'identity',
  'created_ms',
  'key_id',
] as const

/** @throws TenantsError STORE_CORRUPT */
const aboutOf = (row: Pick<StoredFileRow, (typeof ABOUT)[number]>): StoredFile =>
  readRow('stored_files', row.name, () => ({
    tenant: parseTenantId(row.tenant),
    kind: kindOf(row.kind),
    name: parseFileName(row.name),
    version: row.version,
    size: row.size,
    identity: row.identity,
    createdMs: row.created_ms,
    keyId: row.key_id,
  }))

/** @throws TenantsError STORE_CORRUPT */
const fileOf = (row: StoredFileRow): SealedFile => ({
  ...aboutOf(row),
  nonce: Buffer.from(row.nonce, 'base64'),
  sealed: Buffer.from(row.sealed, 'base64'),
})

/** @throws TenantsError FILE_EXISTS, FILES_FULL, TENANT_NOT_FOUND */
export async function insertFile(store: Store, file: SealedFile): Promise<void> {
  const { tenant, kind, name } = file
  const owner = await store
    .selectFrom('tenants')
    .select('id')
    .where('id', '=', tenant)
    .executeTakeFirst()
  if (owner === undefined) throw tenantNotFound()
  const rows = await store
    .selectFrom('stored_files')
    .select(['kind', 'name', 'size'])
    .where('tenant', '=', tenant)
    .execute()
  if (rows.some((row) => row.kind === kind && row.name === name)) {
    const sentence = `The tenant has a ${kind} ${name} already. Remove it first, or take another name.`
    throw new TenantsError('FILE_EXISTS', sentence)
  }
  const bytes = rows.reduce((sum, row) => sum + row.size, file.size)
  if (rows.length >= STORED_FILES_MAX || bytes > STORED_BYTES_MAX) {
    const sentence = `The tenant may have ${STORED_FILES_MAX} configs and secrets, of ${STORED_BYTES_MAX} bytes together, and has them. Remove some.`
    throw new TenantsError('FILES_FULL', sentence, {
      limit: STORED_FILES_MAX,
      limit_bytes: STORED_BYTES_MAX,
    })
  }
  await store
    .insertInto('stored_files')
    .values({
      tenant,
      kind,
      name,
      version: file.version,
      size: file.size,
      identity: file.identity,
      created_ms: file.createdMs,
      key_id: file.keyId,
      nonce: Buffer.from(file.nonce).toString('base64'),
      sealed: Buffer.from(file.sealed).toString('base64'),
    })
    .execute()
}

/** null: there is none. */
export async function selectFile(
  store: Store,
  scope: TenantScope,
  kind: StoredKind,
  name: FileName,
): Promise<StoredFile | null> {
  const row = await store
    .selectFrom('stored_files')
    .select(ABOUT)
    .where('tenant', '=', scope.tenant)
    .where('kind', '=', kind)
    .where('name', '=', name)
    .executeTakeFirst()
  return row === undefined ? null : aboutOf(row)
}

/** The same with its content; null: that version is not there any more. @throws TenantsError STORE_CORRUPT */
export async function selectContent(store: Store, file: StoredFile): Promise<SealedFile | null> {
  const row = await store
    .selectFrom('stored_files')
    .selectAll()
    .where('tenant', '=', file.tenant)
    .where('kind', '=', file.kind)
    .where('name', '=', file.name)
    .where('version', '=', file.version)
    .executeTakeFirst()
  return row === undefined ? null : fileOf(row)
}

/** By name, without the content. */
export async function selectFiles(
  store: Store,
  scope: TenantScope,
  kind: StoredKind,
): Promise<readonly StoredFile[]> {
  const rows = await store
    .selectFrom('stored_files')
    .select(ABOUT)
    .where('tenant', '=', scope.tenant)
    .where('kind', '=', kind)
    .orderBy('name')
    .execute()
  return rows.map(aboutOf)
}

/** One version of it; another that was stored meanwhile stays. false: it was not there any more. */
export async function deleteFile(store: Store, file: StoredFile): Promise<boolean> {
  const row = await store
    .deleteFrom('stored_files')
    .where('tenant', '=', file.tenant)
    .where('kind', '=', file.kind)
    .where('name', '=', file.name)
    .where('version', '=', file.version)
    .returning('name')
    .executeTakeFirst()
  return row !== undefined
}

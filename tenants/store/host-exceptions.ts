/** The host_exceptions table. */
import { type ExceptableId, parseExceptableId } from '../../policy/index.ts'
import { parseExceptionReason, type StoredException } from '../host-exception.ts'
import { readRow } from './rows.ts'
import type { HostExceptionRow, Store } from './tables.ts'

/** @throws TenantsError STORE_CORRUPT */
const exceptionOf = (row: HostExceptionRow): StoredException =>
  readRow('host_exceptions', row.finding, () => ({
    finding: parseExceptableId(row.finding),
    reason: parseExceptionReason(row.reason),
    identity: row.identity,
    createdMs: row.created_ms,
    untilMs: row.until_ms,
    record: row.record_index,
  }))

/** By finding; expired ones too. */
export async function selectExceptions(store: Store): Promise<readonly StoredException[]> {
  const rows = await store.selectFrom('host_exceptions').selectAll().orderBy('finding').execute()
  return rows.map(exceptionOf)
}

/** Writes one down, in place of an earlier one for its finding. */
export async function putException(store: Store, exception: StoredException): Promise<void> {
  const row = {
    reason: exception.reason,
    identity: exception.identity,
    created_ms: exception.createdMs,
    until_ms: exception.untilMs,
    record_index: exception.record,
  }
  await store
    .insertInto('host_exceptions')
    .values({ finding: exception.finding, ...row })
    .onConflict((conflict) => conflict.column('finding').doUpdateSet(row))
    .execute()
}

/** true when there was one, expired or not. */
export async function deleteException(store: Store, finding: ExceptableId): Promise<boolean> {
  const row = await store
    .deleteFrom('host_exceptions')
    .where('finding', '=', finding)
    .returning('finding')
    .executeTakeFirst()
  return row !== undefined
}

/**
 * Opens the database: one file, WAL, every commit on disk before it counts. What is wrong with the
 * file is said before anything is read from it.
 */
import { closeSync, openSync } from 'node:fs'
import { DatabaseSync, type SQLInputValue } from 'node:sqlite'
import { Kysely, type SqliteDatabase, SqliteDialect, type SqliteStatement } from 'kysely'
import { TenantsError } from '../errors.ts'
import { migrate, versionOf } from './migrations.ts'
import type { Store, Tables } from './tables.ts'

/** "cmte" in the header of the file, where `file` and SQLite itself look for it. */
export const APPLICATION_ID = 0x63_6d_74_65

/** SQLITE_CORRUPT and SQLITE_NOTADB. */
const CORRUPT = new Set([11, 26])

/**
 * @param path created when absent, mode 0600; its folder must exist
 * @throws TenantsError STORE_NEWER, STORE_FOREIGN, STORE_CORRUPT
 */
export function openDatabase(path: string): DatabaseSync {
  closeSync(openSync(path, 'a', 0o600))
  let database: DatabaseSync | null = null
  try {
    database = new DatabaseSync(path, { timeout: 5000, enableForeignKeyConstraints: true })
    checkOwner(database, path)
    versionOf(database)
    checkIntegrity(database, path)
    database.exec('PRAGMA journal_mode = WAL')
    database.exec('PRAGMA synchronous = FULL')
    database.exec('PRAGMA trusted_schema = OFF')
    migrate(database, APPLICATION_ID)
    return database
  } catch (error) {
    database?.close()
    throw isCorrupt(error) ? corrupt(path, { cause: error }) : error
  }
}

const isCorrupt = (error: unknown): boolean =>
  error instanceof Error &&
  'errcode' in error &&
  // The primary code is the low byte of an extended one.
  CORRUPT.has(Number(error.errcode) & 0xff)

const corrupt = (path: string, options: ErrorOptions = {}): TenantsError =>
  new TenantsError(
    'STORE_CORRUPT',
    `The database ${path} is damaged and was not touched. Restore it from a backup; \`sqlite3 ${path} .recover\` shows what is left.`,
    { path },
    options,
  )

function checkOwner(database: DatabaseSync, path: string): void {
  const owner = Number(database.prepare('PRAGMA application_id').get()?.['application_id'])
  const tables = Number(database.prepare('SELECT count(*) AS n FROM sqlite_schema').get()?.['n'])
  if (owner === APPLICATION_ID || (owner === 0 && tables === 0)) return
  throw new TenantsError(
    'STORE_FOREIGN',
    `The file ${path} is a database of another program. Move it away, or choose another state directory.`,
    { path },
  )
}

function checkIntegrity(database: DatabaseSync, path: string): void {
  const answer = database.prepare('PRAGMA quick_check(1)').get()?.['quick_check']
  if (answer !== 'ok') throw corrupt(path)
}

/** Parameters that Kysely passes on, as node:sqlite takes them. */
const isBindable = (value: unknown): value is SQLInputValue =>
  value === null || typeof value === 'string' || typeof value === 'number'
const bindable = (values: readonly unknown[]): SQLInputValue[] =>
  values.map((value) => {
    if (isBindable(value)) return value
    throw new TypeError(`a ${typeof value} cannot be stored`)
  })

/** Whether there are files that are encrypted with the key of stored files. */
export const holdsFiles = (database: DatabaseSync): boolean =>
  database.prepare('SELECT 1 FROM stored_files LIMIT 1').get() !== undefined

/** node:sqlite in the shape of the driver that Kysely expects. */
export const adapt = (database: DatabaseSync): SqliteDatabase => ({
  close: () => database.close(),
  prepare: (sql): SqliteStatement => {
    // Kysely says BEGIN; taking the write lock at once avoids the failure of two readers that both
    // want to write later.
    const statement = database.prepare(sql === 'begin' ? 'begin immediate' : sql)
    return {
      reader: statement.columns().length > 0,
      all: (values) => statement.all(...bindable(values)),
      run: (values) => statement.run(...bindable(values)),
      iterate: (values) => statement.iterate(...bindable(values)),
    }
  },
})

export const kyselyOver = (database: SqliteDatabase): Store =>
  new Kysely<Tables>({ dialect: new SqliteDialect({ database }) })

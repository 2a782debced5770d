import assert from 'node:assert/strict'
import {
  chmodSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { suite, test } from 'node:test'
import { DATABASE_FILE, DEFAULT_QUOTA_LIMITS, TenantsError } from '../../../tenants/index.ts'
import { openDatabase } from '../../../tenants/store/database.ts'
import { TOKEN_KEY_FILE } from '../../../tenants/store/key-file.ts'
import { SCHEMA_VERSION } from '../../../tenants/store/migrations.ts'
import { acme, open, openAt, requested, root, temporaryDir, withTenant } from '../fixtures.ts'

/** A closed database with some rows, and a second handle to spoil it with. */
const filled = async (t: Parameters<typeof open>[0]): Promise<{ folder: string; file: string }> => {
  const folder = temporaryDir(t)
  const tenants = openAt(folder)
  const scope = await withTenant(tenants)
  for (let n = 0; n < 40; n += 1) await requested(tenants, scope)
  await tenants.close()
  return { folder, file: path.join(folder, DATABASE_FILE) }
}

const spoil = (file: string, sql: string): void => {
  const database = new DatabaseSync(file)
  database.exec(sql)
  database.close()
}

const refuse = (folder: string, code: string, sentence: RegExp): void => {
  assert.throws(
    () => openAt(folder),
    (error) => {
      assert.ok(error instanceof TenantsError, String(error))
      assert.equal(error.code, code)
      assert.match(error.message, sentence)
      return true
    },
  )
}

suite('tenants/store/database', () => {
  test('opens with the log before the data, and every commit on disk', (t) => {
    const file = path.join(temporaryDir(t), 'x.db')
    const database = openDatabase(file)
    t.after(() => {
      database.close()
    })
    const pragma = (name: string): unknown =>
      Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0]
    assert.equal(pragma('journal_mode'), 'wal')
    assert.equal(pragma('synchronous'), 2)
    assert.equal(pragma('foreign_keys'), 1)
    assert.equal(pragma('trusted_schema'), 0)
    assert.equal(pragma('user_version'), SCHEMA_VERSION)
    assert.equal(statSync(file).mode & 0o777, 0o600)
    const lax = database
      .prepare('SELECT name FROM pragma_table_list WHERE schema = ? AND strict = 0')
      .all('main')
    assert.deepEqual(
      lax.map((row) => row['name']),
      ['sqlite_schema'],
    )
  })

  test('takes a database of an older schema along, rows and all', async (t) => {
    const { folder, file } = await filled(t)
    spoil(
      file,
      `DROP TABLE events;
       DROP TABLE event_floors;
       DROP TABLE event_position;
       DROP TABLE host_drain;
       DROP TRIGGER pods_over_inserted;
       DROP TRIGGER pods_over_deleted;
       DROP TRIGGER pods_over_begun;
       DROP TRIGGER pods_over_ended;
       DROP INDEX pods_over;
       DROP INDEX tenants_ended_pods;
       ALTER TABLE tenants DROP COLUMN ended_pods;
       DROP INDEX pods_ended;
       DROP INDEX pods_name;
       ${['name', 'labels', 'annotations']
         .map((column) => `ALTER TABLE pods DROP COLUMN ${column};`)
         .join('\n')}
       DROP TABLE restart_requests;
       DROP INDEX pods_due;
       DROP INDEX pods_starts;
       ${['stop_asked', 'restart_due_ms', 'restart_streak', 'restart_rule', 'attempt', 'origin']
         .map((column) => `ALTER TABLE pods DROP COLUMN ${column};`)
         .join('\n')}
       DROP INDEX pods_address;
       DROP INDEX tenants_network;
       ALTER TABLE pods DROP COLUMN address;
       ALTER TABLE tenants DROP COLUMN network;
       ALTER TABLE tenants DROP COLUMN egress;
       ALTER TABLE tenants DROP COLUMN ports;
       DROP TABLE published_ports;
       DROP TABLE stored_files;
       ALTER TABLE pods DROP COLUMN stop_recorded;
       ALTER TABLE tenants DROP COLUMN quota_launches_per_minute;
       ALTER TABLE tenants DROP COLUMN quota_volumes;
       ALTER TABLE tenants DROP COLUMN quota_volume_mib;
       DELETE FROM migrations WHERE version > 3;
       PRAGMA user_version = 3;`,
    )
    const tenants = openAt(folder)
    t.after(async () => await tenants.close())
    const scope = await tenants.scope(root, acme)
    const pods = await tenants.listPods(scope, { limit: 100, cursor: null })
    assert.equal(pods.length, 40)
    assert.ok(pods.every((pod) => !pod.stopRecorded))
    assert.ok(pods.every((pod) => pod.origin === pod.id && pod.attempt === 0 && !pod.restart))
    const { launchesPerMinute, egress, volumes, volumeMib } = await tenants.getTenant(scope)
    assert.equal(egress, null, 'no way out that nobody gave')
    assert.equal(launchesPerMinute, DEFAULT_QUOTA_LIMITS.launchesPerMinute)
    const { volumes: count, volumeMib: mib } = DEFAULT_QUOTA_LIMITS
    assert.deepEqual([volumes, volumeMib], [count, mib])
  })

  test('refuses a newer schema, and does not change it', async (t) => {
    const { folder, file } = await filled(t)
    spoil(file, `PRAGMA user_version = ${SCHEMA_VERSION + 1}`)
    const before = readFileSync(file)
    refuse(folder, 'STORE_NEWER', /written by a newer version/u)
    assert.deepEqual(readFileSync(file), before)
  })

  test('refuses a schema made by other steps of the same number', async (t) => {
    const { folder, file } = await filled(t)
    spoil(file, "UPDATE migrations SET sha256 = 'x'")
    refuse(folder, 'STORE_FOREIGN', /made by other steps/u)
  })

  test('refuses the database of another program', (t) => {
    const folder = temporaryDir(t)
    spoil(path.join(folder, DATABASE_FILE), 'CREATE TABLE notes (text)')
    refuse(folder, 'STORE_FOREIGN', /another program/u)
  })

  test('refuses a file that is no database', (t) => {
    const folder = temporaryDir(t)
    writeFileSync(
      path.join(folder, DATABASE_FILE),
      'this is not a database, however long it may be '.repeat(50),
    )
    refuse(folder, 'STORE_CORRUPT', /is damaged and was not touched\. Restore it/u)
  })

  test('refuses a database with a page overwritten', async (t) => {
    const { folder, file } = await filled(t)
    const bytes = readFileSync(file)
    bytes.fill(0xa5, 4096 * 3, 4096 * 6)
    writeFileSync(file, bytes)
    refuse(folder, 'STORE_CORRUPT', /is damaged/u)
  })

  test('refuses a database cut short', async (t) => {
    const { folder, file } = await filled(t)
    truncateSync(file, 4096 * 4)
    refuse(folder, 'STORE_CORRUPT', /is damaged/u)
  })

  test('says that a row was changed by hand, instead of using it', async (t) => {
    const { folder, file } = await filled(t)
    spoil(file, `UPDATE tenants SET image_rule = '{}', image_rule_digest = 'x'`)
    const tenants = openAt(folder)
    t.after(async () => await tenants.close())
    await assert.rejects(tenants.scope(root, acme), { code: 'STORE_CORRUPT' })
  })
})

suite('tenants/store/key-file', () => {
  test('makes the key once, private, and keeps it', async (t) => {
    const { stateDir, tenants } = open(t)
    const file = path.join(stateDir, TOKEN_KEY_FILE)
    const before = readFileSync(file)
    assert.equal(statSync(file).mode & 0o777, 0o600)
    await tenants.close()
    await openAt(stateDir).close()
    assert.deepEqual(readFileSync(file), before)
  })

  test('refuses a key that others can read, a link, and what is no key', (t) => {
    const folder = temporaryDir(t)
    const file = path.join(folder, TOKEN_KEY_FILE)
    writeFileSync(file, 'nothing', { mode: 0o600 })
    refuse(folder, 'TOKEN_KEY_UNSAFE', /not a private key/u)
    chmodSync(file, 0o640)
    refuse(folder, 'TOKEN_KEY_UNSAFE', /mode 0600/u)
    const linked = temporaryDir(t)
    symlinkSync(file, path.join(linked, TOKEN_KEY_FILE))
    refuse(linked, 'TOKEN_KEY_UNSAFE', /is a link/u)
  })
})

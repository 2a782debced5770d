/** Configs and secrets as the store keeps them. */
import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { suite, test } from 'node:test'
import { parseFileName, type StoredKind } from '../../policy/index.ts'
import {
  DATABASE_FILE,
  type NewFile,
  STORED_BYTES_MAX,
  STORED_FILES_MAX,
  type TenantScope,
  type Tenants,
} from '../../tenants/index.ts'
import { FILE_KEY_FILE } from '../../tenants/store/file-key.ts'
import { acme, bolt, open, openAt, temporaryDir, withTenant } from './fixtures.ts'

const recorded = async (): Promise<void> => {}
const key = parseFileName('key')
let versions = 0
const fresh = (content: string, kind: StoredKind = 'secret', name = key): NewFile => {
  versions += 1
  return { kind, name, version: `v${versions}`, content: Buffer.from(content) }
}
const store = async (
  tenants: Tenants,
  scope: TenantScope,
  file: NewFile,
  record: () => Promise<unknown> = recorded,
): Promise<void> => void (await tenants.files.add(scope, file, record))

async function contentOf(
  tenants: Tenants,
  scope: TenantScope,
  kind: StoredKind = 'secret',
): Promise<string | null> {
  const found = await tenants.files.find(scope, kind, key)
  const content = found && (await tenants.files.open(found))
  return content && Buffer.from(content).toString('utf8')
}

/** Changes the database behind the store's back. */
function spoil(folder: string, sql: string): void {
  const database = new DatabaseSync(path.join(folder, DATABASE_FILE))
  database.exec(sql)
  database.close()
}

suite('tenants/files', () => {
  test('keeps what it is given for one tenant, by kind and name, and over a restart', async (t) => {
    const folder = temporaryDir(t)
    const before = openAt(folder)
    const scope = await withTenant(before)
    const other = await withTenant(before, bolt)
    await store(before, scope, fresh('of acme'))
    await store(before, scope, fresh('', 'config'))
    await store(before, other, fresh('of bolt'))
    await before.close()
    const tenants = openAt(folder)
    t.after(async () => await tenants.close())
    assert.equal(await contentOf(tenants, scope), 'of acme')
    assert.equal(await contentOf(tenants, scope, 'config'), '')
    assert.equal(await contentOf(tenants, other), 'of bolt')
    assert.equal((await tenants.files.list(scope, 'secret')).length, 1)
    await assert.rejects(store(tenants, scope, fresh('again')), { code: 'FILE_EXISTS' })
    assert.equal(await contentOf(tenants, scope), 'of acme')
  })

  test('has nothing of the content in any file, and the key in one that is private', async (t) => {
    const { stateDir, tenants } = open(t)
    const scope = await withTenant(tenants)
    const secret = 'correct horse battery staple'
    await store(tenants, scope, fresh(secret))
    for (const name of readdirSync(stateDir)) {
      const bytes = readFileSync(path.join(stateDir, name))
      assert.ok(!bytes.includes(secret) && !bytes.includes(btoa(secret)), name)
    }
    assert.equal(statSync(path.join(stateDir, FILE_KEY_FILE)).mode & 0o777, 0o600)
  })

  test('opens nothing that was changed, or moved to another tenant, kind or name', async (t) => {
    const { stateDir, tenants } = open(t)
    const scope = await withTenant(tenants)
    const other = await withTenant(tenants, bolt)
    await store(tenants, scope, fresh('of acme'))
    await store(tenants, other, fresh('of bolt'))
    spoil(
      stateDir,
      `UPDATE stored_files SET (nonce, sealed, version) =
         (SELECT nonce, sealed, version FROM stored_files WHERE tenant = '${acme}')
       WHERE tenant = '${bolt}'`,
    )
    await assert.rejects(contentOf(tenants, other), { code: 'STORE_CORRUPT' })
    assert.equal(await contentOf(tenants, scope), 'of acme')
    spoil(stateDir, `UPDATE stored_files SET kind = 'config' WHERE tenant = '${acme}'`)
    await assert.rejects(contentOf(tenants, scope, 'config'), { code: 'STORE_CORRUPT' })
    spoil(
      stateDir,
      `UPDATE stored_files SET kind = 'secret', version = 'v0' WHERE tenant = '${acme}'`,
    )
    await assert.rejects(contentOf(tenants, scope), { code: 'STORE_CORRUPT' })
  })

  test('says by id that a file was stored with another key, and takes no key that others read', async (t) => {
    const folder = temporaryDir(t)
    const before = openAt(folder)
    const scope = await withTenant(before)
    await store(before, scope, fresh('x'))
    await before.close()
    const file = path.join(folder, FILE_KEY_FILE)
    writeFileSync(file, Buffer.alloc(32, 7))
    const tenants = openAt(folder)
    t.after(async () => await tenants.close())
    await assert.rejects(contentOf(tenants, scope), { code: 'FILE_KEY_UNSAFE', message: /id/u })
    chmodSync(file, 0o640)
    assert.throws(() => openAt(folder), { code: 'FILE_KEY_UNSAFE', message: /private/u })
    chmodSync(file, 0o600)
    writeFileSync(file, 'short')
    assert.throws(() => openAt(folder), { code: 'FILE_KEY_UNSAFE', message: /32 bytes/u })
    // Another key would be made, used, and lost when the first comes back from a backup.
    rmSync(file)
    assert.throws(() => openAt(folder), { code: 'FILE_KEY_UNSAFE', message: /is missing/u })
    assert.ok(!existsSync(file))
  })

  test('keeps and removes nothing that is not on record, and bounds how many there are', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const unrecorded = (): Promise<never> => Promise.reject(new Error('no log'))
    await assert.rejects(store(tenants, scope, fresh('x'), unrecorded), /no log/u)
    assert.equal(await contentOf(tenants, scope), null)
    await store(tenants, scope, fresh('x'))
    const found = await tenants.files.find(scope, 'secret', key)
    assert.ok(found !== null)
    await assert.rejects(tenants.files.remove(found, unrecorded), /no log/u)
    assert.equal(await contentOf(tenants, scope), 'x')
    await tenants.files.remove(found, recorded)
    assert.equal(await contentOf(tenants, scope), null)
    for (let number = 0; number < STORED_FILES_MAX; number += 1) {
      const kind = number % 2 === 0 ? 'config' : 'secret'
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await store(tenants, scope, fresh('', kind, parseFileName(`n${number}`)))
    }
    await assert.rejects(store(tenants, scope, fresh('')), { code: 'FILES_FULL' })
    const other = await withTenant(tenants, bolt)
    const large = 'x'.repeat(2 ** 19)
    for (let bytes = 0; bytes < STORED_BYTES_MAX; bytes += large.length) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await store(tenants, other, fresh(large, 'config', parseFileName(`n${bytes}`)))
    }
    await assert.rejects(store(tenants, other, fresh('x')), { code: 'FILES_FULL' })
    await store(tenants, other, fresh(''))
    const [listed] = await tenants.files.list(other, 'config')
    assert.ok(listed !== undefined && !Object.hasOwn(listed, 'sealed'), 'a list has no content')
  })
})

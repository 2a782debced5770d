/** Configs and secrets of tenants: encrypted as they go into the store, opened as they come out. */
import type { FileName, StoredKind } from '../policy/index.ts'
import type { TenantScope } from './scope.ts'
import { type FileKey, seal, unseal } from './store/file-key.ts'
import { deleteFile, insertFile, selectContent, selectFile, selectFiles } from './store/files.ts'
import type { Store } from './store/tables.ts'
import type { SealedFile, StoredFile } from './stored-file.ts'

/** One to be kept. */
export interface NewFile {
  readonly kind: StoredKind
  readonly name: FileName
  /** Fresh. */
  readonly version: string
  readonly content: Uint8Array
}

export interface StoredFilesParts {
  readonly store: Store
  readonly key: FileKey
  /** ms since 1970. */
  readonly now: () => number
}

export class StoredFiles {
  readonly #store: Store
  readonly #key: FileKey
  readonly #now: () => number

  constructor({ store, key, now }: StoredFilesParts) {
    this.#store = store
    this.#key = key
    this.#now = now
  }

  /**
   * Keeps one.
   * @param record puts it on record; when it throws nothing is kept
   * @throws TenantsError FILE_EXISTS, FILES_FULL, TENANT_NOT_FOUND; what `record` throws
   */
  async add(
    { tenant, identity }: TenantScope,
    { content, ...wanted }: NewFile,
    record: (file: SealedFile) => Promise<unknown>,
  ): Promise<SealedFile> {
    const about = { ...wanted, tenant, identity, size: content.length, createdMs: this.#now() }
    const file = seal(this.#key, { ...about, keyId: this.#key.id }, content)
    return await this.#store.transaction().execute(async (transaction) => {
      await insertFile(transaction, file)
      await record(file)
      return file
    })
  }

  /** null: the tenant has none of that name. @throws TenantsError STORE_CORRUPT */
  async find(scope: TenantScope, kind: StoredKind, name: FileName): Promise<StoredFile | null> {
    return await selectFile(this.#store, scope, kind, name)
  }

  /** By name, without the content. @throws TenantsError STORE_CORRUPT */
  async list(scope: TenantScope, kind: StoredKind): Promise<readonly StoredFile[]> {
    return await selectFiles(this.#store, scope, kind)
  }

  /** Its content; null: that version was removed. @throws TenantsError FILE_KEY_UNSAFE, STORE_CORRUPT */
  async open(file: StoredFile): Promise<Uint8Array | null> {
    const sealed = await selectContent(this.#store, file)
    return sealed && unseal(this.#key, sealed)
  }

  /** false: somebody was quicker. @param record puts it on record; when it throws the file stays */
  async remove(file: StoredFile, record: () => Promise<unknown>): Promise<boolean> {
    return await this.#store.transaction().execute(async (transaction) => {
      const removed = await deleteFile(transaction, file)
      if (removed) await record()
      return removed
    })
  }
}

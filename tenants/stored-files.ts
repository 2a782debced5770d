/** Configs and secrets of tenants: encrypted as they go into the store, opened as they come out. */
import type { FileName, StoredKind } from '../policy/index.ts'
import type { TenantScope } from './scope.ts'
import { type FileKey, seal, unseal } from './store/file-key.ts'
import { deleteFile, insertFile, selectFile, selectFiles } from './store/files.ts'
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
  async find(scope: TenantScope, kind: StoredKind, name: FileName): Promise<SealedFile | null> {
    return await selectFile(this.#store, scope, kind, name)
  }

  /** By name, without the content. @throws TenantsError STORE_CORRUPT */
  async list(scope: TenantScope, kind: StoredKind): Promise<readonly StoredFile[]> {
    return await selectFiles(this.#store, scope, kind)
  }

  /** Its content. @throws TenantsError FILE_KEY_UNSAFE, STORE_CORRUPT */
  open(file: SealedFile): Uint8Array {
    return unseal(this.#key, file)
  }

  /** @param record puts it on record; when it throws the file stays */
  async remove(file: SealedFile, record: () => Promise<unknown>): Promise<void> {
    await this.#store.transaction().execute(async (transaction) => {
      await deleteFile(transaction, file)
      await record()
    })
  }
}

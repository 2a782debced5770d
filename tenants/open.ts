/** Opens the tenants of a state directory. */
import path from 'node:path'
import { adapt, holdsFiles, kyselyOver, openDatabase } from './store/database.ts'
import { loadFileKey } from './store/file-key.ts'
import { loadTokenKey, publicHalf } from './store/key-file.ts'
import { Tenants } from './tenants.ts'

export const DATABASE_FILE = 'casemate.db'

export interface TenantsConfig {
  /** Exists, and is private to the agent's user. */
  readonly stateDir: string
  /** The `iss` of tokens, as `https://node-1.example.com`. */
  readonly issuer: string
  /** The `aud` of tokens: the API of this host and nothing else. */
  readonly audience: string
  /** ms since 1970. */
  readonly now: () => number
}

/** @throws TenantsError STORE_NEWER, STORE_FOREIGN, STORE_CORRUPT, TOKEN_KEY_UNSAFE, FILE_KEY_UNSAFE */
export function openTenants(config: TenantsConfig): Tenants {
  const privateKey = loadTokenKey(config.stateDir)
  const database = openDatabase(path.join(config.stateDir, DATABASE_FILE))
  const fileKey = loadFileKey(config.stateDir, holdsFiles(database))
  const { issuer, audience, now } = config
  return new Tenants({
    store: kyselyOver(adapt(database)),
    authority: { issuer, audience, privateKey, publicKey: publicHalf(privateKey) },
    fileKey,
    now,
  })
}

/** The agent's configuration: one file of root's, read once, strict. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { boolean, integer, list, members, nullable, text } from '../native/shape.ts'
import { parseJson } from '../policy/canonical.ts'
import {
  NAMESERVERS_MAX,
  OPTIONS_MAX,
  parseNameservers,
  parseResolverOptions,
  parseSearch,
  type Resolver,
  SEARCH_MAX,
} from '../policy/index.ts'
import type { RegistryAllowance } from './images/index.ts'
import type { Ages } from './tasks/gc.ts'

const FILE_BYTES_MAX = 65_536
const PATH_CHARACTERS_MAX = 4096

export interface AgentConfig {
  /** This host's id, as in spawn's configuration. */
  readonly node: string
  /** Private to the agent's user: database, keys, images, logs, the audit log. */
  readonly stateDir: string
  /** The agent's own folder for its socket and its certificate, readable by others. */
  readonly runDir: string
  readonly spawnSocket: string
  readonly signerSocket: string
  /** The file that the signer writes its public key into. */
  readonly vkeyFile: string
  /** User ids beside root that are operators on the unix socket. */
  readonly operators: readonly number[]
  /** Port on 127.0.0.1; null: no HTTPS. */
  readonly httpsPort: number | null
  readonly registries: readonly RegistryAllowance[]
  /** For all tenants' images; null: none beside the tenants' own. The text of an image rule. */
  readonly imageFloor: string | null
  readonly requestsPerMinute: number
  /** What pods with a way out are told of names. */
  readonly resolver: Resolver
  /** From which ages on ended pods and unused images go by themselves. */
  readonly ages: Ages
  /** SHA-256 of the file, for the records. */
  readonly digest: string
}

const MEMBERS = [
  'v',
  'node',
  'state_dir',
  'run_dir',
  'spawn_socket',
  'signer_socket',
  'vkey_file',
  'operators',
  'https_port',
  'registries',
  'image_floor',
  'requests_per_minute',
  'resolver',
  'keep',
] as const

function place(value: unknown, at: string): string {
  const found = text(value, at, PATH_CHARACTERS_MAX)
  if (path.isAbsolute(found) && path.normalize(found) === found) return found
  throw new TypeError(`${at} must be an absolute path without . and ..`)
}

function registry(value: unknown, at: string): RegistryAllowance {
  const found = members(value, at, ['host', 'insecure'])
  const host = text(found['host'], `${at}.host`, 255)
  return { host, insecure: boolean(found['insecure'], `${at}.insecure`) }
}

function resolver(value: unknown): Resolver {
  const found = members(value, 'resolver', ['nameservers', 'options', 'search'])
  const words = (name: string, max: number): readonly string[] =>
    list(found[name], `resolver.${name}`, max, (one, at) => text(one, at, 255))
  return {
    nameservers: parseNameservers(words('nameservers', NAMESERVERS_MAX)),
    options: parseResolverOptions(words('options', OPTIONS_MAX)),
    search: parseSearch(words('search', SEARCH_MAX)),
  }
}

const DAY_MS = 86_400_000
const DAYS_MAX = 3650

/** null: for ever. */
function ages(value: unknown): Ages {
  const found = members(value, 'keep', ['ended_pods_days', 'unused_images_days'])
  const age = (name: string): number | null =>
    nullable(found[name], (days) => integer(days, `keep.${name}`, 1, DAYS_MAX) * DAY_MS)
  return { podsMs: age('ended_pods_days'), imagesMs: age('unused_images_days') }
}

/** @throws BadJsonText, BadShape, BadNoun or TypeError, with the member that is wrong */
export function parseConfig(bytes: Uint8Array): AgentConfig {
  const document = parseJson(bytes, { bytesMax: FILE_BYTES_MAX, depthMax: 16 })
  const found = members(document, 'agent.json', MEMBERS)
  if (found['v'] !== 'casemate.agent/1')
    throw new TypeError('agent.json.v must be casemate.agent/1')
  return {
    node: text(found['node'], 'node', 64),
    stateDir: place(found['state_dir'], 'state_dir'),
    runDir: place(found['run_dir'], 'run_dir'),
    spawnSocket: place(found['spawn_socket'], 'spawn_socket'),
    signerSocket: place(found['signer_socket'], 'signer_socket'),
    vkeyFile: place(found['vkey_file'], 'vkey_file'),
    operators: list(found['operators'], 'operators', 64, (uid, at) =>
      integer(uid, at, 0, 4_294_967_294),
    ),
    httpsPort: nullable(found['https_port'], (port) => integer(port, 'https_port', 1, 65_535)),
    registries: list(found['registries'], 'registries', 64, registry),
    imageFloor: nullable(found['image_floor'], (rule) => text(rule, 'image_floor', FILE_BYTES_MAX)),
    resolver: resolver(found['resolver']),
    ages: ages(found['keep']),
    requestsPerMinute: integer(found['requests_per_minute'], 'requests_per_minute', 1, 1_000_000),
    digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`,
  }
}

/** @throws as parseConfig, and when the file cannot be read */
export const loadConfig = (file: string): AgentConfig => parseConfig(readFileSync(file))

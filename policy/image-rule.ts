/**
 * Which signatures an image must carry: the typed rule of one tenant, or the provider's floor.
 *
 *     {"schemaVersion":1,"default":"deny","rules":[
 *       {"name":"prod","match":["registry.example.com/acme/**"],
 *        "require":{"all":[
 *          {"anyOf":[{"type":"cosign-key","keys":[{"id":"release","pem":"-----BEGIN PUBLIC KEY-----…"}],
 *                     "transparency":"none","identityMatch":"exactRepository"}],
 *           "threshold":1}]}}]}
 *
 * Every rule whose `match` fits must hold; in a rule every item of `all`; in an item `threshold`
 * different keys out of `anyOf`. No rule fits: denied. The document is read whole or not at all,
 * and what this version does not know is refused, never skipped.
 */
import { createHash } from 'node:crypto'
import { BadJsonText, type Canonical, parseJson } from './canonical.ts'
import { type Glob, parseGlob } from './image-glob.ts'
import { type ImageKey, parseImageKey } from './image-key.ts'
import { type Digest, parseDigest } from './nouns/digest.ts'

import {
  BadDocument,
  listOf,
  membersOf,
  oneOf,
  stringOf,
  type Where,
  within,
} from './strict-members.ts'

export interface ImageRule {
  /** SHA-256 of the document's bytes as given: what the record names. */
  readonly digest: Digest
  /** The document as given. */
  readonly text: string
  readonly rules: readonly Rule[]
}

export interface Rule {
  readonly name: string
  readonly match: readonly Glob[]
  readonly all: readonly Requirement[]
}

/** So many different keys out of the authorities' keys must have signed. */
export interface Requirement {
  readonly anyOf: readonly CosignKeyAuthority[]
  readonly threshold: number
}

/**
 * Keys in the way of `cosign generate-key-pair`. `exactRepository` refuses a signature whose payload
 * names another repository; sigstore bundles name none, there only `match` binds the repository.
 */
export interface CosignKeyAuthority {
  readonly type: 'cosign-key'
  readonly keys: readonly ImageKey[]
  /** No transparency log is consulted. Said in the document, so that nobody assumes one. */
  readonly transparency: 'none'
  readonly identityMatch: 'exactRepository' | 'anyRepository'
}

export const IMAGE_RULE_BYTES_MAX = 262_144
export const IMAGE_RULES_MAX = 64
export const MATCHES_MAX = 64
export const REQUIREMENTS_MAX = 8
export const AUTHORITIES_MAX = 8
export const KEYS_MAX = 32
const ruleName = /^[a-z0-9][a-z0-9._-]{0,63}$/u

/**
 * Reads a rule document, all or nothing.
 * @throws BadDocument naming the member and what it must be
 */
export function parseImageRule(text: string): ImageRule {
  const root: Where = { document: 'image rule', path: '' }
  const document = membersOf(readJson(root, text), root, ['schemaVersion', 'default', 'rules'])
  if (document['schemaVersion'] !== 1)
    throw new BadDocument(within(root, 'schemaVersion'), 'must be 1')
  oneOf(document['default'], within(root, 'default'), ['deny'])
  const rules = listOf(document['rules'], within(root, 'rules'), IMAGE_RULES_MAX, parseRule)
  const names = new Set(rules.map((rule) => rule.name))
  if (names.size !== rules.length)
    throw new BadDocument(within(root, 'rules'), 'must have different names')
  const hash = createHash('sha256').update(text, 'utf8').digest('hex')
  return { digest: parseDigest(`sha256:${hash}`), text, rules }
}

function readJson(where: Where, text: string): Canonical {
  try {
    return parseJson(text, { bytesMax: IMAGE_RULE_BYTES_MAX, depthMax: 16 })
  } catch (error) {
    if (error instanceof BadJsonText)
      throw new BadDocument(where, `must be strict JSON: ${error.message}`)
    throw error
  }
}

function parseRule(value: Canonical | undefined, where: Where): Rule {
  const rule = membersOf(value, where, ['name', 'match', 'require'])
  const require = membersOf(rule['require'], within(where, 'require'), ['all'])
  const all = within(within(where, 'require'), 'all')
  return {
    name: stringOf(rule['name'], within(where, 'name'), ruleName),
    match: listOf(rule['match'], within(where, 'match'), MATCHES_MAX, parseGlob),
    all: listOf(require['all'], all, REQUIREMENTS_MAX, parseRequirement),
  }
}

function parseRequirement(value: Canonical | undefined, where: Where): Requirement {
  const requirement = membersOf(value, where, ['anyOf', 'threshold'])
  const anyOf = listOf(
    requirement['anyOf'],
    within(where, 'anyOf'),
    AUTHORITIES_MAX,
    parseAuthority,
  )
  const ids = anyOf.flatMap((authority) => authority.keys.map((key) => key.keyId))
  // A key listed twice would make a threshold of two look stronger than it is.
  if (new Set(ids).size !== ids.length) {
    throw new BadDocument(within(where, 'anyOf'), 'must not list one key twice')
  }
  const threshold = requirement['threshold']
  if (
    typeof threshold !== 'number' ||
    !Number.isInteger(threshold) ||
    threshold < 1 ||
    threshold > ids.length
  ) {
    throw new BadDocument(
      within(where, 'threshold'),
      `must be an integer from 1 to the number of keys, ${ids.length}`,
    )
  }
  return { anyOf, threshold }
}

function parseAuthority(value: Canonical | undefined, where: Where): CosignKeyAuthority {
  const authority = membersOf(value, where, ['type', 'keys', 'transparency', 'identityMatch'])
  return {
    type: oneOf(authority['type'], within(where, 'type'), ['cosign-key']),
    keys: listOf(authority['keys'], within(where, 'keys'), KEYS_MAX, parseImageKey),
    transparency: oneOf(authority['transparency'], within(where, 'transparency'), ['none']),
    identityMatch: oneOf(authority['identityMatch'], within(where, 'identityMatch'), [
      'exactRepository',
      'anyRepository',
    ]),
  }
}

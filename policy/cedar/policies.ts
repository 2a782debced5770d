/**
 * A policy set that passed the activation gate, and the one way to ask it.
 *
 * An ActivePolicies is immutable: who wants to change the policies activates another and swaps the
 * reference, so a launch in flight is decided by one set and never by half of each.
 */
import { createHash } from 'node:crypto'
import {
  getCedarVersion,
  preparsePolicySet,
  preparseSchema,
  statefulIsAuthorized,
} from '@cedar-policy/cedar-wasm/nodejs'
import { type Digest, parseDigest } from '../nouns/digest.ts'
import { isRefusalCode, type RefusalCode } from '../refusal.ts'
import type { PolicyTexts } from './defaults.ts'
import {
  type CedarCall,
  type ExecQuery,
  type FileQuery,
  type LaunchQuery,
  toCedarCall,
  toExecCall,
  toFileCall,
  toVolumeCall,
  type VolumeQuery,
} from './query.ts'
import { CEDAR_SCHEMA } from './schema.ts'
import { errorVerdict, type Verdict, verdictOf } from './verdict.ts'

/** What a policy says of itself. */
export interface PolicyNote {
  readonly reason: string
  readonly code: RefusalCode | null
}

/**
 * Cedar's cache of parsed sets cannot be emptied, and each name in it stays for ever; so there is
 * one name, and it is parsed anew when another set than the last one is asked.
 */
const SLOT = 'casemate'
let inSlot: Digest | null = null

const sha256 = (text: string): Digest =>
  parseDigest(`sha256:${createHash('sha256').update(text, 'utf8').digest('hex')}`)

/** Made by activatePolicies only. */
export class ActivePolicies {
  /** SHA-256 of the JSON array of [id, text] pairs, sorted by id. */
  readonly digest: Digest
  readonly schemaDigest: Digest = sha256(CEDAR_SCHEMA)
  readonly cedarVersion: string = getCedarVersion()
  readonly texts: PolicyTexts
  readonly #notes: ReadonlyMap<string, PolicyNote>

  constructor(texts: PolicyTexts, notes: ReadonlyMap<string, PolicyNote>) {
    this.texts = Object.freeze({ ...texts })
    this.#notes = notes
    const ids = Object.keys(texts).toSorted()
    this.digest = sha256(JSON.stringify(ids.map((id) => [id, texts[id]])))
  }

  /** What the policy with this id says of itself; null for an id that is not in the set. */
  note(policyId: string): PolicyNote | null {
    return this.#notes.get(policyId) ?? null
  }

  /** Never throws: whatever goes wrong in Cedar is a verdict of kind error, and so a denial. */
  ask(query: LaunchQuery): Verdict {
    return this.#ask(() => toCedarCall(query))
  }

  /** Likewise. */
  askExec(query: ExecQuery): Verdict {
    return this.#ask(() => toExecCall(query))
  }

  /** Likewise. */
  askFile(query: FileQuery): Verdict {
    return this.#ask(() => toFileCall(query))
  }

  /** Likewise. */
  askVolume(query: VolumeQuery): Verdict {
    return this.#ask(() => toVolumeCall(query))
  }

  #ask(call: () => CedarCall): Verdict {
    try {
      const problem = this.#load()
      if (problem !== null) return errorVerdict([], problem)
      return verdictOf(
        statefulIsAuthorized({
          ...call(),
          preparsedPolicySetId: SLOT,
          preparsedSchemaName: SLOT,
          validateRequest: true,
        }),
      )
    } catch (error) {
      return errorVerdict([], `Cedar threw: ${String(error)}`)
    }
  }

  #load(): string | null {
    if (inSlot === this.digest) return null
    inSlot = null
    const schema = preparseSchema(SLOT, CEDAR_SCHEMA)
    if (schema.type !== 'success') return 'the schema does not parse'
    const set = preparsePolicySet(SLOT, { staticPolicies: { ...this.texts } })
    if (set.type !== 'success') return 'the policy set does not parse'
    inSlot = this.digest
    return null
  }
}

/** Reads the annotations that records and refusals show; null when they are not as they must be. */
export function noteOf(annotations: Readonly<Record<string, string>>): PolicyNote | null {
  const { reason, code } = annotations
  if (reason === undefined || reason.trim() === '') return null
  if (code === undefined) return { reason, code: null }
  return isRefusalCode(code) ? { reason, code } : null
}

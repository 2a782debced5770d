/**
 * Checks signatures that were found. Pure, synchronous and slow enough to matter: collect.ts runs it
 * in a thread when there is much to check.
 */

import { checkBundle } from './bundle.ts'
import type { CheckedSignature, FoundSignature, TrustedKey } from './found.ts'
import { fails, type Outcome } from './outcome.ts'
import { checkSimpleSigning } from './simple-signing.ts'

export interface CheckInput {
  readonly found: readonly FoundSignature[]
  readonly keys: readonly TrustedKey[]
  /** Digest of the image; a signature may be right and for another. */
  readonly digest: string
}

function outcomeOf(found: FoundSignature, keys: readonly TrustedKey[]): Outcome {
  try {
    return found.form === 'tag' ? checkSimpleSigning(found, keys) : checkBundle(found, keys)
  } catch (error) {
    // Whatever goes wrong with bytes of strangers is a signature that does not count.
    return fails(
      'malformed',
      error instanceof Error ? error.message.slice(0, 300) : 'it is unreadable',
    )
  }
}

function evidenceOf(found: FoundSignature, outcome: Outcome, digest: string): CheckedSignature {
  const common = { kind: 'cosign-key', form: found.form, artifact: found.artifact } as const
  const verified = outcome.reason === 'verified'
  if (!verified || outcome.digest === digest) return { ...common, ...outcome, verified }
  const detail = 'it verifies, but it is for another image'
  return { ...common, ...outcome, verified, reason: 'digest_mismatch', detail }
}

export const checkSignatures = ({ found, keys, digest }: CheckInput): readonly CheckedSignature[] =>
  found.map((one) => evidenceOf(one, outcomeOf(one, keys), digest))

/** What checking one signature gave, before it is compared with the image. */
import type { Evidence, EvidenceReason } from '../../../policy/index.ts'

export interface Outcome extends Pick<Evidence, 'keyId' | 'digest' | 'identity' | 'reason'> {
  readonly payload: string | null
  readonly detail: string
}

export const fails = (reason: EvidenceReason, detail: string): Outcome => ({
  keyId: null,
  digest: null,
  identity: null,
  payload: null,
  reason,
  detail,
})

/** A pod's id and the name its guest gets. */
import { BadNoun, type Branded } from './brand.ts'

/**
 * A pod's id, also the launch id of its records: a UUID version 7 (RFC 9562 section 5.7) in lower
 * case. Ids sort by the time they were made, so a listing needs no second key.
 */
export type PodId = Branded<string, 'PodId'>
const podId = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/u

const isPodId = (input: unknown): input is PodId => typeof input === 'string' && podId.test(input)

/** @throws BadNoun */
export function parsePodId(input: unknown): PodId {
  if (isPodId(input)) return input
  throw new BadNoun('pod id', 'must be a UUID version 7 in lower case')
}

/** A host name for the guest: one DNS label, at most 63 characters (RFC 1123). */
export type Hostname = Branded<string, 'Hostname'>
const hostname = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/u

const isHostname = (input: unknown): input is Hostname =>
  typeof input === 'string' && hostname.test(input)

/** @throws BadNoun */
export function parseHostname(input: unknown): Hostname {
  if (isHostname(input)) return input
  throw new BadNoun(
    'hostname',
    'must be 1 to 63 of a-z, 0-9 and -, and neither begin nor end with -',
  )
}

/** The host name of a pod that asked for none: `pod-` and the random end of its id. */
export const defaultHostname = (pod: PodId): Hostname => parseHostname(`pod-${pod.slice(-12)}`)

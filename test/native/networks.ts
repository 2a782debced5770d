/** Networks of specs in tests. */
import { NO_NAMES } from '../../policy/nouns/names.ts'
import type { PodNetwork } from '../../policy/nouns/network.ts'

/** A card of a pod that reaches nothing but its tenant's pods, with what is said differently. */
export const networkOf = (changes: Partial<PodNetwork> = {}): PodNetwork => ({
  addresses: ['10.88.0.2/24'],
  egress: null,
  gateways: [],
  mac: '02:0a:58:00:00:02',
  mtu: 1500,
  names: NO_NAMES,
  ports: [],
  rates: { receive: null, transmit: null },
  ...changes,
})

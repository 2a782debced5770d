/** A pod's network: which one it asks for, and its place on it. Addresses are given out by the host alone. */
import type { NetworkRates } from '../plan.ts'
import { BadNoun, type Branded } from './brand.ts'
import type { Egress } from './egress.ts'
import type { Names } from './names.ts'
import type { PublishedPort } from './ports.ts'

/** A network's name. `none`: no network; `default`: the tenant's own; `host`: the host's. There are no others yet. */
export type NetworkName = Branded<string, 'NetworkName'>
const networkName = /^[a-z][a-z0-9-]{0,62}$/u

const isNetworkName = (input: unknown): input is NetworkName =>
  typeof input === 'string' && networkName.test(input)

/** @throws BadNoun */
export function parseNetworkName(input: unknown): NetworkName {
  if (isNetworkName(input)) return input
  throw new BadNoun('network', 'must be 1 to 63 of a-z, 0-9 and -, and begin with a letter')
}

/** What a launch gets that asked for none. */
export const NO_NETWORK: NetworkName = parseNetworkName('none')
/** The one network that every tenant has. */
export const TENANT_NETWORK: NetworkName = parseNetworkName('default')
/** What a pod at level host has, and no other. */
export const HOST_NETWORK: NetworkName = parseNetworkName('host')

/** A pod's place on a network. */
export type PodPlace = {
  /** `address/prefix` in canonical form; IPv4, then IPv6. */
  readonly addresses: readonly string[]
  /** One of each version. */
  readonly gateways: readonly string[]
  /** Six pairs of lower-case hexadecimal digits; locally administered. */
  readonly mac: string
  /** Bytes of the largest packet. */
  readonly mtu: number
}

/** A card as the spec has it (docs/formats.md section 2). */
export type PodNetwork = PodPlace & {
  /** null: nothing beside the tenant's pods. */
  readonly egress: Egress | null
  readonly names: Names
  /** Of the host, that lead here. */
  readonly ports: readonly PublishedPort[]
  readonly rates: NetworkRates
}

/**
 * Numbers of tenants' networks: from 1, because an IPv6 network 0 is written in another form; to the last network of
 * 24 bits in 10.88.0.0/13.
 */
export const NETWORK_NUMBER_MIN = 1
export const NETWORK_NUMBER_MAX = 2047
/** Numbers of pods on a network: 1 is the gateway, 0 and 255 are the network's own. */
export const POD_NUMBER_MIN = 2
const GATEWAY = 1
export const POD_NUMBER_MAX = 254
const MTU = 1500
/** Of a unique local network (RFC 4193), the same on every host: no host's pods reach another's. */
const IPV6_PREFIX = 'fdca:5e3a:7e00'

/** The place of a pod: 10.88.0.0/13 in networks of 256, and the same numbers in IPv6 and in the hardware address. */
export function podNetwork(network: number, pod: number): PodPlace {
  const second = 88 + (network >> 8)
  const third = network & 255
  const prefix = `${IPV6_PREFIX}:${network.toString(16)}`
  const mac = [2, 0, 10, second, third, pod].map((byte) => byte.toString(16).padStart(2, '0'))
  return {
    addresses: [`10.${second}.${third}.${pod}/24`, `${prefix}::${pod.toString(16)}/64`],
    gateways: [`10.${second}.${third}.${GATEWAY}`, `${prefix}::${GATEWAY}`],
    mac: mac.join(':'),
    mtu: MTU,
  }
}

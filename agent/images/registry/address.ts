/**
 * Where the agent may connect to. References, redirects and token services are named by strangers,
 * and the agent stands inside the provider's network: without this, an image reference reads the
 * cloud's metadata service (SSRF).
 *
 * Every address is checked when it is connected to, after resolution, so a name that resolves
 * differently the second time gains nothing.
 */
import { type LookupAddress, type LookupOptions, lookup as resolveName } from 'node:dns'
import { BlockList, isIP } from 'node:net'

import { ImageError, show } from '../errors.ts'

/** A registry that the provider vouches for. */
export interface RegistryAllowance {
  /** Host, with the port unless it is the scheme's own: `registry.lan:5000`. */
  readonly host: string
  /** Plain HTTP, and loopback addresses. For registries on this very host, and tests. */
  readonly insecure: boolean
}

export type AddressClass = 'public' | 'private' | 'loopback' | 'forbidden'

const forbidden = new BlockList()
forbidden.addSubnet('0.0.0.0', 8)
forbidden.addSubnet('169.254.0.0', 16)
forbidden.addSubnet('192.0.0.0', 24)
forbidden.addSubnet('224.0.0.0', 3)
// Metadata and host services of clouds that do not live in link-local space.
forbidden.addAddress('100.100.100.200')
forbidden.addAddress('168.63.129.16')
forbidden.addSubnet('fd00:ec2::', 32, 'ipv6')
forbidden.addSubnet('fe80::', 10, 'ipv6')
forbidden.addSubnet('ff00::', 8, 'ipv6')
// IPv4 in disguise: NAT64 and 6to4 lead to addresses that this list would have to see through.
forbidden.addSubnet('64:ff9b::', 32, 'ipv6')
forbidden.addSubnet('2002::', 16, 'ipv6')
forbidden.addSubnet('2001::', 32, 'ipv6')

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8)
loopback.addAddress('::1', 'ipv6')

const inside = new BlockList()
inside.addSubnet('10.0.0.0', 8)
inside.addSubnet('100.64.0.0', 10)
inside.addSubnet('172.16.0.0', 12)
inside.addSubnet('192.168.0.0', 16)
inside.addSubnet('198.18.0.0', 15)
inside.addSubnet('fc00::', 7, 'ipv6')

const globalUnicast = new BlockList()
globalUnicast.addSubnet('2000::', 3, 'ipv6')

const mapped = /^::ffff:([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)$/iu

/** What kind of place an IP address is. */
export function classify(address: string): AddressClass {
  const plain = mapped.exec(address)?.[1] ?? address
  const family = isIP(plain) === 6 ? 'ipv6' : 'ipv4'
  if (isIP(plain) === 0 || forbidden.check(plain, family)) return 'forbidden'
  if (loopback.check(plain, family)) return 'loopback'
  if (inside.check(plain, family)) return 'private'
  if (family === 'ipv6' && !globalUnicast.check(plain, family)) return 'forbidden'
  return 'public'
}

/** How far a host is trusted: what its addresses may be, and whether without TLS. */
export type Reach = 'public' | 'private' | 'insecure'

const REACHES: Readonly<Record<Reach, ReadonlySet<AddressClass>>> = {
  public: new Set(['public']),
  private: new Set(['public', 'private']),
  insecure: new Set(['public', 'private', 'loopback']),
}

/** The reach of a host (with port), by the provider's list. */
export function reachOf(host: string, allowances: readonly RegistryAllowance[]): Reach {
  const allowance = allowances.find((one) => one.host === host)
  if (allowance === undefined) return 'public'
  return allowance.insecure ? 'insecure' : 'private'
}

const refuse = (host: string, why: string): ImageError =>
  new ImageError(
    'REGISTRY_ADDRESS_FORBIDDEN',
    `The agent does not connect to ${show(host)}: ${why}. The provider can list it as a registry.`,
  )

/**
 * Refuses a URL by what can be seen without resolving: scheme, user info, and addresses given as
 * such, for which no look-up is ever called.
 * @throws ImageError REGISTRY_ADDRESS_FORBIDDEN
 */
export function checkUrl(url: URL, allowances: readonly RegistryAllowance[]): Reach {
  const reach = reachOf(url.host, allowances)
  const scheme = reach === 'insecure' ? /^https?:$/u : /^https:$/u
  if (!scheme.test(url.protocol)) throw refuse(url.host, 'it would not be over HTTPS')
  if (url.username !== '' || url.password !== '') throw refuse(url.host, 'the URL has user info')
  const name = url.hostname.replace(/^\[(.*)\]$/u, '$1')
  if (isIP(name) !== 0 && !REACHES[reach].has(classify(name))) {
    throw refuse(url.host, `its address is ${classify(name)}`)
  }
  return reach
}

type LookupCallback = (
  error: Error | null,
  address: string | LookupAddress[],
  family?: number,
) => void

/** A `lookup` for sockets that lets through only addresses within a reach. */
export function guardedLookup(
  reach: Reach,
): (hostname: string, options: LookupOptions, callback: LookupCallback) => void {
  return (hostname, options, callback) => {
    resolveName(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) return callback(error, [])
      const bad = addresses.find(({ address }) => !REACHES[reach].has(classify(address)))
      const [first] = addresses
      // One bad address refuses all: which one is tried is not for the name's owner to choose.
      if (bad !== undefined || first === undefined) {
        return callback(refuse(hostname, `it resolves to ${bad?.address ?? 'nothing'}`), [])
      }
      if (options.all === true) return callback(null, addresses)
      return callback(null, first.address, first.family)
    })
  }
}

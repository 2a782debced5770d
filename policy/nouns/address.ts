/** Addresses and networks of IPv4 and IPv6, read and written in one way (RFC 5952), as the spec has them. */

/** An address as a number. */
export interface Ip {
  readonly version: 4 | 6
  readonly value: bigint
}

/** A network: an address without bits behind its prefix. */
export interface Network {
  readonly ip: Ip
  /** Bits that all its addresses share. */
  readonly prefix: number
}

export const bitsOf = ({ version }: Ip): number => (version === 4 ? 32 : 128)

function parse4(text: string): bigint | null {
  const parts = text.split('.')
  const good = parts.every((part) => /^(?:0|[1-9]\d{0,2})$/u.test(part) && Number(part) < 256)
  return parts.length === 4 && good
    ? parts.reduce((sum, part) => sum * 256n + BigInt(part), 0n)
    : null
}

const GROUPS = 8

function parse6(text: string): bigint | null {
  const halves = text.split('::')
  if (halves.length > 2) return null
  const groups = halves.map((half) => (half === '' ? [] : half.split(':')))
  const count = groups.flat().length
  const fits = halves.length === 2 ? count < GROUPS : count === GROUPS
  if (!fits || !groups.flat().every((group) => /^[0-9a-f]{1,4}$/u.test(group))) return null
  const [head = [], tail = []] = groups
  const zeros = Array.from({ length: GROUPS - count }, () => '0')
  return [...head, ...zeros, ...tail].reduce(
    (sum, group) => sum * 65_536n + BigInt(`0x${group}`),
    0n,
  )
}

function format6(value: bigint): string {
  const digits = value.toString(16).padStart(32, '0')
  const groups = Array.from({ length: GROUPS }, (_, at) =>
    Number.parseInt(digits.slice(at * 4, at * 4 + 4), 16).toString(16),
  )
  let longest = { at: 0, length: 1 }
  for (const at of groups.keys()) {
    let length = 0
    while (groups[at + length] === '0') length += 1
    if (length > longest.length) longest = { at, length }
  }
  if (longest.length < 2) return groups.join(':')
  const head = groups.slice(0, longest.at).join(':')
  return `${head}::${groups.slice(longest.at + longest.length).join(':')}`
}

export function formatIp({ version, value }: Ip): string {
  if (version === 6) return format6(value)
  return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join('.')
}

/** null for what is no address, and for every other way to write one; IPv4 inside of IPv6 is none either. */
export function parseIp(text: string): Ip | null {
  const version = text.includes(':') ? 6 : 4
  const value = version === 6 ? parse6(text) : parse4(text)
  if (value === null || (version === 6 && value >> 32n === 0xffffn)) return null
  const ip: Ip = { version, value }
  return formatIp(ip) === text ? ip : null
}

/** `address/prefix`; null for anything else. */
export function parseNetwork(text: string): Network | null {
  const [address = '', length = '', ...rest] = text.split('/')
  const ip = parseIp(address)
  if (ip === null || rest.length > 0 || !/^(?:0|[1-9]\d{0,2})$/u.test(length)) return null
  const prefix = Number(length)
  const behind = BigInt(bitsOf(ip) - prefix)
  const whole = prefix <= bitsOf(ip) && (ip.value >> behind) << behind === ip.value
  return whole ? { ip, prefix } : null
}

const firstOf = ({ ip }: Network): bigint => ip.value
const lastOf = ({ ip, prefix }: Network): bigint =>
  ip.value | ((1n << BigInt(bitsOf(ip) - prefix)) - 1n)

/** Whether all of `inner` is in `outer`. */
export const contains = (outer: Network, inner: Network): boolean =>
  outer.ip.version === inner.ip.version &&
  firstOf(outer) <= firstOf(inner) &&
  lastOf(inner) <= lastOf(outer)

/** Whether they have an address in common. */
export const overlap = (one: Network, other: Network): boolean =>
  contains(one, other) || contains(other, one)

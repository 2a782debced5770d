/**
 * Ports of the host that lead to a pod. As people write them, `[address:]host:pod[/tcp|/udp]`, by Docker's example; without an
 * address it is 127.0.0.1, so that who publishes to the world says so.
 */
import { parseIp } from './address.ts'
import { BadNoun } from './brand.ts'
import type { Protocol } from './egress.ts'

/** As the spec has it (docs/formats.md section 2). */
export type PublishedPort = {
  /** Of the host; 0.0.0.0 and :: are all of a version, for TCP alone. */
  readonly address: string
  readonly host: number
  readonly pod: number
  readonly protocol: Protocol
}

/** What a tenant may publish. */
export type PortRange = {
  /** null: of loopback alone. */
  readonly address: string | null
  readonly from: number
  readonly to: number
}

export const PORTS_MAX = 32
export const PORT_WORD_MAX = 64
const LOOPBACK = '127.0.0.1'
const LOOPBACKS: ReadonlySet<string> = new Set([LOOPBACK, '::1'])
const PORT_MAX = 65_535

const place = String.raw`(?:(?:\[(?<six>[0-9a-f:]+)\]|(?<four>[0-9.]+)):)?`
const published = new RegExp(
  String.raw`^${place}(?<host>[1-9]\d{0,4}):(?<pod>[1-9]\d{0,4})(?:/(?<protocol>tcp|udp))?$`,
  'u',
)
const range = new RegExp(String.raw`^${place}(?<from>[1-9]\d{0,4})(?:-(?<to>[1-9]\d{0,4}))?$`, 'u')

const isPort = (port: number): boolean => port >= 1 && port <= PORT_MAX
const isAddress = (text: string | undefined): boolean =>
  text === undefined || parseIp(text) !== null

function publishedOf(text: string): PublishedPort {
  const { six, four, host, pod, protocol } = published.exec(text)?.groups ?? {}
  const address = six ?? four ?? LOOPBACK
  const port = { address, host: Number(host), pod: Number(pod) }
  if (!isAddress(address) || !isPort(port.host) || !isPort(port.pod)) {
    throw new BadNoun(
      'published port',
      'must be host:pod or address:host:pod, as 8080:80, 127.0.0.1:53:53/udp, 0.0.0.0:443:443 or [::1]:8080:80',
    )
  }
  if (protocol !== 'udp') return { ...port, protocol: 'tcp' }
  if (address !== allOf(address)) return { ...port, protocol }
  // What answers a datagram has to say which address was asked; of all, nobody knows.
  throw new BadNoun('published port', 'must name one address of the host where it is UDP')
}

const placeOf = ({ address: at, host, protocol }: PublishedPort): string =>
  `${at} ${host}/${protocol}`

/** @throws BadNoun */
export function parsePublished(words: readonly string[]): readonly PublishedPort[] {
  if (words.length > PORTS_MAX) throw new BadNoun('published ports', `must be ${PORTS_MAX} at most`)
  const ports = words.map(publishedOf)
  if (new Set(ports.map(placeOf)).size === ports.length) return ports
  throw new BadNoun('published ports', 'must be each once')
}

const isRange = ({ from, to }: PortRange): boolean => isPort(from) && isPort(to) && from <= to

function rangeOf(text: string): PortRange {
  const { six, four, from, to = from } = range.exec(text)?.groups ?? {}
  const found = { address: six ?? four ?? null, from: Number(from), to: Number(to) }
  if (isAddress(six ?? four) && isRange(found)) return found
  throw new BadNoun(
    'range of ports',
    'must be as 8000-8099 (of loopback), 0.0.0.0:443 or [::]:8000-8099',
  )
}

/** @throws BadNoun */
export function parsePortRanges(words: readonly string[]): readonly PortRange[] {
  if (words.length > PORTS_MAX) throw new BadNoun('ranges of ports', `must be ${PORTS_MAX} at most`)
  return words.map(rangeOf)
}

/** What `parsePortRanges` reads. */
export const portRangeWords = (ranges: readonly PortRange[]): readonly string[] =>
  ranges.map((one) => {
    const bare = one.address?.includes(':') === true ? `[${one.address}]:` : `${one.address}:`
    const last = one.to === one.from ? '' : `-${one.to}`
    return `${one.address === null ? '' : bare}${one.from}${last}`
  })

/** Whether one of the ranges has it. An address is permitted by its own name only: 0.0.0.0 is no permission for others. */
export const permitsPort = (ranges: readonly PortRange[], port: PublishedPort): boolean =>
  ranges.some(
    (one) =>
      (one.address === null ? LOOPBACKS.has(port.address) : one.address === port.address) &&
      one.from <= port.host &&
      port.host <= one.to,
  )

/** The address that stands for all of a version, beside an address of it. */
export const allOf = (one: string): string => (one.includes(':') ? '::' : '0.0.0.0')

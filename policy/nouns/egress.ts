/**
 * What may be reached from a pod beside its tenant's pods. As people write it: `internet`, `192.0.2.0/24`,
 * `192.0.2.0/24=tcp`, `2001:db8::/32=tcp:443` or `=udp:5000-5999`; a list of none is nothing.
 */
import { contains, type Network, overlap, parseNetwork } from './address.ts'
import { BadNoun } from './brand.ts'

export type Protocol = 'tcp' | 'udp'

/** One network, as the spec has it (docs/formats.md section 2). null: every protocol, every port. */
export type EgressRule = {
  readonly cidr: string
  readonly ports: { readonly from: number; readonly to: number } | null
  readonly protocol: Protocol | null
}

export type Egress = {
  /** Every address of the internet, and none that is special or private. */
  readonly internet: boolean
  readonly rules: readonly EgressRule[]
}

/** Words of one tenant or launch. The spec has room for those of nameservers on top. */
export const EGRESS_MAX = 48
export const EGRESS_WORD_MAX = 80
const PORT_MAX = 65_535
const word =
  /^(?<cidr>[0-9a-f.:]+\/\d+)(?:=(?<protocol>tcp|udp)(?::(?<from>[1-9]\d{0,4})(?:-(?<to>[1-9]\d{0,4}))?)?)?$/u

/** Beside what is refused to every pod: the IANA's registries of special addresses, as in native/spawn/src/router/rules.rs. */
const SPECIAL = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '168.63.129.16/32',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/4',
  '240.0.0.0/4',
  '2001::/23',
  '2001:db8::/32',
  '2002::/16',
  '3fff::/20',
].map(networkOf)
const INTERNET_6 = networkOf('2000::/3')

/** Of a text that was parsed before. */
function networkOf(text: string): Network {
  const network = parseNetwork(text)
  if (network === null)
    throw new BadNoun('network', `must be an address with a prefix, not ${text}`)
  return network
}

/** Of what was matched of a word. */
const protocolOf = (text: string | undefined): Protocol | null =>
  text === 'tcp' || text === 'udp' ? text : null

const isRange = (ports: EgressRule['ports']): boolean =>
  ports === null || (ports.from <= ports.to && ports.to <= PORT_MAX)

function ruleOf(text: string): EgressRule {
  const { cidr = '', protocol, from, to = from } = word.exec(text)?.groups ?? {}
  const ports = from === undefined ? null : { from: Number(from), to: Number(to) }
  if (parseNetwork(cidr) === null || !isRange(ports)) {
    const shown = text.slice(0, EGRESS_WORD_MAX)
    throw new BadNoun(
      'egress',
      `must be internet, or a network as 192.0.2.0/24, with =tcp, =udp:53 or =tcp:8000-8099 behind it, not ${shown}`,
    )
  }
  return { cidr, ports, protocol: protocolOf(protocol) }
}

/** @throws BadNoun */
export function parseEgress(words: readonly string[]): Egress | null {
  if (words.length > EGRESS_MAX)
    throw new BadNoun('egress', `must be ${EGRESS_MAX} networks at most`)
  if (words.length === 0) return null
  const rules = words.filter((one) => one !== 'internet').map(ruleOf)
  return { internet: rules.length < words.length, rules }
}

/** What `parseEgress` reads. */
export function egressWords(egress: Egress | null): readonly string[] {
  if (egress === null) return []
  const rules = egress.rules.map(({ cidr, ports, protocol }) => {
    const range =
      ports === null ? '' : `:${ports.from}${ports.to === ports.from ? '' : `-${ports.to}`}`
    return protocol === null ? cidr : `${cidr}=${protocol}${range}`
  })
  return egress.internet ? ['internet', ...rules] : rules
}

function isOfInternet({ cidr }: EgressRule): boolean {
  const network = networkOf(cidr)
  const reached = network.ip.version === 4 || contains(INTERNET_6, network)
  return reached && !SPECIAL.some((special) => overlap(special, network))
}

const covers = (outer: EgressRule, inner: EgressRule): boolean =>
  contains(networkOf(outer.cidr), networkOf(inner.cidr)) &&
  (outer.protocol === null || outer.protocol === inner.protocol) &&
  (outer.ports === null ||
    (inner.ports !== null &&
      outer.ports.from <= inner.ports.from &&
      inner.ports.to <= outer.ports.to))

/** The first word of `wanted` that `allowed` does not permit; null when all is permitted. */
export function beyondEgress(allowed: Egress | null, wanted: Egress | null): string | null {
  if (wanted === null) return null
  if (wanted.internet && allowed?.internet !== true) return 'internet'
  const beyond = wanted.rules.filter(
    (rule) =>
      !(allowed?.internet === true && isOfInternet(rule)) &&
      !(allowed?.rules ?? []).some((outer) => covers(outer, rule)),
  )
  return egressWords(beyond.length === 0 ? null : { internet: false, rules: beyond })[0] ?? null
}

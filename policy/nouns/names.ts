/** What a pod's resolver is told: nameservers, domains, options, and lines of its hosts file. */
import { parseIp } from './address.ts'
import { BadNoun } from './brand.ts'

/** As the spec has it (docs/formats.md section 2). */
export type Names = {
  readonly hosts: readonly { readonly address: string; readonly name: string }[]
  readonly nameservers: readonly string[]
  readonly options: readonly string[]
  readonly search: readonly string[]
}

export const NO_NAMES: Names = { hosts: [], nameservers: [], options: [], search: [] }
/** What the C library reads of each (`MAXNS`, `MAXDNSRCH`), and ours. */
export const NAMESERVERS_MAX = 3
export const SEARCH_MAX = 6
export const OPTIONS_MAX = 8
export const HOSTS_MAX = 32
const NAME_CHARACTERS_MAX = 253
const name = /^[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*$/u

function listed(words: readonly string[], max: number, what: string): readonly string[] {
  if (words.length <= max) return words
  throw new BadNoun(what, `must be ${max} at most`)
}

const isName = (text: string): boolean => text.length <= NAME_CHARACTERS_MAX && name.test(text)

/** @throws BadNoun */
export function parseNameservers(words: readonly string[]): readonly string[] {
  const found = listed(words, NAMESERVERS_MAX, 'nameservers')
  if (found.every((text) => parseIp(text) !== null)) return found
  throw new BadNoun('nameserver', 'must be an address, as 10.0.0.2 or fd00::53')
}

/** @throws BadNoun */
export function parseSearch(words: readonly string[]): readonly string[] {
  const found = listed(words, SEARCH_MAX, 'search domains')
  if (found.every(isName)) return found
  throw new BadNoun('search domain', 'must be a name, as example.com')
}

/** @throws BadNoun */
export function parseResolverOptions(words: readonly string[]): readonly string[] {
  const found = listed(words, OPTIONS_MAX, 'options of the resolver')
  if (found.every((text) => /^[A-Za-z0-9:_.-]{1,64}$/u.test(text))) return found
  throw new BadNoun('option of the resolver', 'must be a word, as ndots:2')
}

/** `name:address`, as Docker has it. @throws BadNoun */
export function parseHosts(words: readonly string[]): Names['hosts'] {
  return listed(words, HOSTS_MAX, 'hosts').map((text) => {
    const at = text.indexOf(':')
    const [host, address] = [text.slice(0, Math.max(at, 0)), text.slice(at + 1)]
    if (isName(host) && parseIp(address) !== null) return { address, name: host }
    throw new BadNoun('host', 'must be name:address, as db:10.0.0.5')
  })
}

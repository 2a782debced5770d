/** Where memory is swapped to, and whether a disk that is read later gives it away. */
import path from 'node:path'
import type { HostDescription } from '../../native/spawn-answers.ts'
import { type HostCheck, ok, severe, unknown, warning } from './check.ts'
import { type HostRoot, LONG_TEXT_BYTES } from './root.ts'

/** Spaces and the like in /proc/swaps and mountinfo are octal. */
const unescape = (text: string): string =>
  text.replaceAll(/\\([0-7]{3})/gu, (_all, digits: string) =>
    String.fromCodePoint(Number.parseInt(digits, 8)),
  )

/** Of swap areas that a finding names. */
const NAMED_MAX = 4
const NAME_CHARACTERS_MAX = 64
/** Devices on devices on devices. */
const DEPTH_MAX = 8
/** How cryptsetup names what encrypts; its CRYPT-VERITY- and CRYPT-INTEGRITY- devices do not. */
const encrypts = /^CRYPT-(?:LUKS[12]|PLAIN|LOOPAES|TCRYPT|BITLK)-/u

/** Whether what is written to this device of sysfs is encrypted by dm-crypt, itself or all below it. */
async function isCrypt(root: HostRoot, device: string, depth = 0): Promise<boolean> {
  const uuid = await root.text(`${device}/dm/uuid`)
  if (uuid === null || depth > DEPTH_MAX) return false
  if (encrypts.test(uuid)) return true
  const below = (await root.names(`${device}/slaves`)) ?? []
  if (below.length === 0) return false
  const found = await Promise.all(
    below.map((name) => isCrypt(root, `sys/class/block/${name}`, depth + 1)),
  )
  return found.every(Boolean)
}

/** The device below a file: that of the mount it lies on. A file system on several has none to name. */
async function deviceBelow(root: HostRoot, file: string): Promise<string> {
  const mounts = (await root.text('proc/self/mountinfo', LONG_TEXT_BYTES)) ?? ''
  let best = { length: 0, number: '' }
  for (const line of mounts.split('\n')) {
    const [, , number = '', , at = ''] = line.split(' ')
    const place = unescape(at)
    const holds = file === place || file.startsWith(place.endsWith('/') ? place : `${place}/`)
    // A later mount lies over an earlier one.
    if (holds && place.length >= best.length) best = { length: place.length, number }
  }
  return `sys/dev/block/${best.number}`
}

/** `/dev/dm-1` by its own name, `/dev/mapper/swap` by the name that device mapper knows. */
async function deviceOf(root: HostRoot, file: string): Promise<string> {
  const name = path.basename(file)
  if (!file.startsWith('/dev/mapper/')) return `sys/class/block/${name}`
  for (const one of (await root.names('sys/class/block')) ?? []) {
    if ((await root.text(`sys/class/block/${one}/dm/name`)) === name)
      return `sys/class/block/${one}`
  }
  return `sys/class/block/${name}`
}

/** Whether a line of /proc/swaps keeps what is swapped from being read off a disk. */
async function isSafe(root: HostRoot, file: string, type: string): Promise<boolean> {
  if (type === 'file') return await isCrypt(root, await deviceBelow(root, file))
  if (/^\/dev\/zram\d+$/u.test(file)) {
    const behind = await root.text(`sys/class/block/${path.basename(file)}/backing_dev`)
    return behind === null || behind === 'none'
  }
  return await isCrypt(root, await deviceOf(root, file))
}

/** Areas from which swapped memory could be read later, by name. */
async function plainAreas(root: HostRoot, swaps: string): Promise<readonly string[]> {
  const plain: string[] = []
  // The first line names the columns.
  for (const line of swaps.split('\n').slice(1)) {
    const [name = '', type = ''] = line.split(/\s+/u)
    const file = unescape(name)
    if (!(await isSafe(root, file, type))) plain.push(file)
  }
  return plain.toSorted()
}

/** Swap outlives who wrote it: a disk that is read later gives away memory of tenants long gone. */
export async function swap(root: HostRoot, { host }: HostDescription): Promise<HostCheck> {
  const id = 'swap'
  const swaps = await root.text('proc/swaps', LONG_TEXT_BYTES)
  if (swaps === null) {
    const seen = (await root.text('proc/meminfo')) !== null
    return seen ? ok(id, 'not in this kernel') : unknown(id, 'Where memory is swapped to')
  }
  const plain = await plainAreas(root, swaps)
  if (plain.length === 0) return ok(id, swaps.includes('\n') ? 'encrypted, or in memory' : 'none')
  const named = plain.slice(0, NAMED_MAX).map((file) => file.slice(0, NAME_CHARACTERS_MAX))
  const more = plain.length > NAMED_MAX ? ` and ${plain.length - NAMED_MAX} more` : ''
  const where = `Swap on ${named.join(', ')}${more} is not encrypted`
  const fix = `swapoff ${named.join(' ')}${more}, or put it on dm-crypt with a random key (crypttab: swap).`
  if (!host.swap_limit)
    return severe(id, `${where}, and this kernel cannot keep VMs out of it.`, fix)
  const left = 'VMs are kept out of it, but not the signer’s key and what the agent holds'
  return warning(id, `${where}: ${left}.`, fix)
}

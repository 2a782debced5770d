/** What of a VMM's memory is not its guest's, from /proc/PID/smaps (proc_pid_smaps(5)). */

export interface Mapping {
  readonly start: number
  readonly end: number
  /** Of the file, at `start`. */
  readonly offset: number
  /** Path or name; empty for anonymous memory. */
  readonly name: string
  /** Resident, KiB. */
  readonly rss_kib: number
}

/** Name of the memfd that a template's memory is kept in. */
export const TEMPLATE_MEMORY: RegExp = /^\/memfd:casemate-memory\b/u
/** Everything of a mapping that is wanted; the first line is its addresses, offset and name. */
const MAPPING =
  /^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ *(.*)\n(?:[A-Za-z_]+: .*\n)*?Rss: +(\d+) kB$/mu
/** Mappings begin with their addresses, and nothing else does. */
const BETWEEN = /\n(?=[0-9a-f]+-[0-9a-f]+ )/u

const fromHex = (text = ''): number => Number.parseInt(text, 16)

function mappingOf(block: string): Mapping {
  const [whole, start, end, offset, name = '', rss] = MAPPING.exec(block) ?? []
  if (whole === undefined) throw new RangeError(`no mapping of smaps: ${block.slice(0, 100)}`)
  const place = { start: fromHex(start), end: fromHex(end), offset: fromHex(offset) }
  return { ...place, name, rss_kib: Number(rss) }
}

/** Nothing of a process that has ended. @throws RangeError for what is no smaps */
export const parseSmaps = (text: string): readonly Mapping[] =>
  text === '' ? [] : text.split(BETWEEN).map(mappingOf)

/**
 * Where guest memory is, or null before it is mapped. Restored, it is pieces of the template's file
 * with anonymous memory between them, and an offset in the file is a guest address; booted, it is
 * one anonymous mapping of just its size.
 */
function guestStart(
  mappings: readonly Mapping[],
  guestBytes: number,
  memory: RegExp,
): number | null {
  const piece = mappings.find(({ name }) => memory.test(name))
  if (piece !== undefined) return piece.start - piece.offset
  const whole = mappings.find(({ start, end, name }) => name === '' && end - start === guestBytes)
  return whole?.start ?? null
}

/** One look at a VMM. */
export interface Sample {
  /** KiB resident in all mappings that are not guest memory. */
  readonly overhead_kib: number
  /** Whether guest memory was mapped; before that, everything counts. */
  readonly has_guest: boolean
}

/**
 * @param memory names the file that a restored guest's memory is mapped from
 * @throws RangeError when a mapping is guest memory in part: then it was not understood
 */
export function sampleOf(
  mappings: readonly Mapping[],
  guestBytes: number,
  memory: RegExp = TEMPLATE_MEMORY,
): Sample {
  const start = guestStart(mappings, guestBytes, memory) ?? Infinity
  const end = start + guestBytes
  let sum = 0
  for (const mapping of mappings) {
    const isGuest = mapping.start >= start && mapping.end <= end
    if (!isGuest && mapping.start < end && mapping.end > start) {
      throw new RangeError(
        `the mapping ${mapping.name || 'without a name'} is guest memory in part`,
      )
    }
    if (!isGuest) sum += mapping.rss_kib
  }
  return { overhead_kib: sum, has_guest: start !== Infinity }
}

/**
 * The list of a pod's processes, as our code in the pod writes it (docs/formats.md section 7). At level vm the guest says
 * what it likes: a list that is not one is refused, and what it has steers no terminal.
 */

export interface PodProcess {
  readonly pid: number
  readonly ppid: number
  readonly uid: number
  /** By the image's passwd. */
  readonly user: string | null
  /** As in proc(5): R, S, D, Z, T and the like. */
  readonly state: string
  readonly threads: number
  readonly cpu_us: number
  readonly memory_bytes: number
  readonly command: string
}

/** As native/guest-init/src/errand/processes.rs has them. */
const PROCESSES_MAX = 4096
const LINE_CHARACTERS_MAX = 2048
/** Most bytes of a list. */
export const PROCESSES_BYTES_MAX: number = 4 << 20

export class BadProcesses extends Error {
  override readonly name = 'BadProcesses'
}

function memberOf(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) throw new BadProcesses('a line is no object')
  return Reflect.get(value, name)
}

function numberIn(value: unknown, name: string): number {
  const found = memberOf(value, name)
  if (typeof found === 'number' && Number.isSafeInteger(found) && found >= 0) return found
  throw new BadProcesses(`${name} of a process is no number`)
}

function textIn(value: unknown, name: string, most: number): string {
  const found = memberOf(value, name)
  if (typeof found === 'string' && found.length <= most && /^[ -~]*$/u.test(found)) return found
  throw new BadProcesses(`${name} of a process is no plain text`)
}

function processIn(line: string): PodProcess {
  let value: unknown
  try {
    value = line.length > LINE_CHARACTERS_MAX ? null : JSON.parse(line)
  } catch (cause) {
    throw new BadProcesses('a line is no JSON', { cause })
  }
  return {
    pid: numberIn(value, 'pid'),
    ppid: numberIn(value, 'ppid'),
    uid: numberIn(value, 'uid'),
    user: memberOf(value, 'user') === null ? null : textIn(value, 'user', 64),
    state: textIn(value, 'state', 1),
    threads: numberIn(value, 'threads'),
    cpu_us: numberIn(value, 'cpu_us'),
    memory_bytes: numberIn(value, 'memory_bytes'),
    command: textIn(value, 'command', 512),
  }
}

/** @throws BadProcesses */
export function readProcesses(text: string): readonly PodProcess[] {
  const lines = text.split('\n')
  if (lines.pop() !== '') throw new BadProcesses('the list ends within a line')
  if (lines.length > PROCESSES_MAX) throw new BadProcesses('there are too many processes')
  return lines.map(processIn)
}

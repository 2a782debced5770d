/** What set-up built, from .tools/artifacts/artifacts.json. */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { BadShape, digest, integer, text } from '../shape.ts'
import { readVerity, type Verity } from '../spawn-answers.ts'

/** An empty file system: its block digest, its place, its bytes. */
export interface EmptyDisk {
  readonly blocks: string
  readonly path: string
  readonly size: number
}

export interface Artifacts {
  readonly spawn: string
  readonly vmm: string
  /** The monitor of containers. */
  readonly container: string
  readonly kernel: string
  readonly init: string
  readonly initVerity: Verity
  /** The empty file system of every scratch disk, as spawn's configuration names it. */
  readonly scratch: EmptyDisk
  /** Likewise of every named volume. */
  readonly volume: EmptyDisk
  /** For `doctor --vm`: an image with one program, and a kernel that attacks its VMM. */
  readonly hello: { readonly path: string; readonly size: number; readonly verity: Verity }
  readonly attack: string
  /** Where spawns of this machine keep templates: outside the checkout, for root alone. */
  readonly templates: string
}

export const ARTIFACTS = '.tools/artifacts'

function member(value: unknown, at: string, name: string): unknown {
  if (typeof value !== 'object' || value === null) throw new BadShape(at, 'must be an object')
  const found: unknown = Reflect.get(value, name)
  if (found === undefined) throw new BadShape(`${at}.${name}`, 'is missing')
  return found
}

/** CPU flags of hardware virtualisation: with them the plain kernel runs, whatever the KVM's class. */
const hasVirtualisation = (): boolean =>
  /^flags\s*:.*\b(?:vmx|svm)\b/mu.test(readFileSync('/proc/cpuinfo', 'utf8'))

/**
 * @param checkout where set-up ran; @param code the same files where the processes see them
 * @throws BadShape, or an error that says to run set-up
 */
export function readArtifacts(checkout: string, code: string): Artifacts {
  const file = path.join(checkout, ARTIFACTS, 'artifacts.json')
  let manifest: unknown
  try {
    manifest = JSON.parse(readFileSync(file, 'utf8'))
  } catch (cause) {
    throw new Error(`${file} cannot be read: run \`npm run setup\` first`, { cause })
  }
  const place = (value: unknown, at: string): string =>
    path.join(code, path.relative(checkout, text(member(value, at, 'path'), at, 4096)))
  const kernels = member(manifest, 'artifacts', 'kernel')
  const kernel = hasVirtualisation() ? 'hardware' : 'software'
  const empty = (name: 'scratch' | 'volume'): EmptyDisk => {
    const found = member(manifest, 'artifacts', name)
    return {
      blocks: digest(member(found, name, 'blocks'), `${name}.blocks`),
      path: place(found, name),
      size: integer(member(found, name, 'size'), `${name}.size`, 4096),
    }
  }
  const init = member(manifest, 'artifacts', 'init')
  const hello = member(manifest, 'artifacts', 'hello')
  const templates = member(manifest, 'artifacts', 'templates')
  integer(member(init, 'init', 'size'), 'init.size', 4096)
  return {
    spawn: place(member(manifest, 'artifacts', 'spawn'), 'spawn'),
    vmm: place(member(manifest, 'artifacts', 'vmm'), 'vmm'),
    container: place(member(manifest, 'artifacts', 'container'), 'container'),
    kernel: place(member(kernels, 'kernel', kernel), `kernel.${kernel}`),
    init: place(init, 'init'),
    initVerity: readVerity(member(init, 'init', 'verity'), 'init.verity'),
    scratch: empty('scratch'),
    volume: empty('volume'),
    hello: {
      path: place(hello, 'hello'),
      size: integer(member(hello, 'hello', 'size'), 'hello.size', 4096),
      verity: readVerity(member(hello, 'hello', 'verity'), 'hello.verity'),
    },
    attack: place(member(manifest, 'artifacts', 'attack'), 'attack'),
    templates: text(member(templates, 'templates', 'path'), 'templates.path', 4096),
  }
}

/** Reads the request strictly: the worker runs nothing it does not understand whole. */
import { parseCanonical } from '../../../policy/canonical.ts'
import { RootfsFailure } from './failure.ts'
import {
  LAYER_PACKINGS,
  type LayerPacking,
  REQUEST_VERSION,
  type RootfsLayer,
  type RootfsLimits,
  type RootfsRequest,
} from './request.ts'

const digest = /^sha256:[0-9a-f]{64}$/u

const bad = (what: string): RootfsFailure =>
  new RootfsFailure('ROOTFS_REQUEST_INVALID', `the request of the agent: ${what}`)

type Members = Readonly<Record<string, unknown>>

/** An object with exactly these members. */
function membersOf(input: unknown, names: readonly string[], what: string): Members {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) {
    throw bad(`${what} is not an object`)
  }
  const members = { ...input } as Members
  const found = Object.keys(members).toSorted().join()
  if (found !== names.toSorted().join()) throw bad(`${what} has other members`)
  return members
}

function naturalOf(input: unknown, what: string): number {
  if (typeof input === 'number' && Number.isSafeInteger(input) && input >= 0) return input
  throw bad(`${what} is not a natural number`)
}

function digestOf(input: unknown, what: string): string {
  if (typeof input === 'string' && digest.test(input)) return input
  throw bad(`${what} is not a digest`)
}

const isPacking = (input: unknown): input is LayerPacking =>
  LAYER_PACKINGS.some((packing) => packing === input)

function parseLayer(input: unknown): RootfsLayer {
  const layer = membersOf(input, ['packing', 'size', 'digest', 'diff_id'], 'a layer')
  const packing = layer['packing']
  if (!isPacking(packing)) throw bad('the packing of a layer is unknown')
  return {
    packing,
    size: naturalOf(layer['size'], 'the size of a layer'),
    digest: digestOf(layer['digest'], 'the digest of a layer'),
    diff_id: digestOf(layer['diff_id'], 'the diff_id of a layer'),
  }
}

function parseLimits(input: unknown): RootfsLimits {
  const names = [
    'devices',
    'entries',
    'unpacked_bytes',
    'ratio',
    'ratio_from_bytes',
    'output_bytes',
  ]
  const limits = membersOf(input, names, 'limits')
  const { devices } = limits as { devices?: unknown }
  if (typeof devices !== 'boolean') throw bad('devices is not a boolean')
  return {
    devices,
    entries: naturalOf(limits['entries'], 'entries'),
    unpacked_bytes: naturalOf(limits['unpacked_bytes'], 'unpacked_bytes'),
    ratio: naturalOf(limits['ratio'], 'ratio'),
    ratio_from_bytes: naturalOf(limits['ratio_from_bytes'], 'ratio_from_bytes'),
    output_bytes: naturalOf(limits['output_bytes'], 'output_bytes'),
  }
}

/** @throws RootfsFailure ROOTFS_REQUEST_INVALID */
export function parseRequest(bytes: Uint8Array): RootfsRequest {
  let input: unknown
  try {
    input = parseCanonical(bytes)
  } catch {
    throw bad('not canonical JSON')
  }
  const request = membersOf(input, ['v', 'layers', 'limits'], 'the document')
  if (request['v'] !== REQUEST_VERSION) throw bad('another version')
  if (!Array.isArray(request['layers'])) throw bad('layers is not an array')
  return {
    v: REQUEST_VERSION,
    layers: request['layers'].map(parseLayer),
    limits: parseLimits(request['limits']),
  }
}

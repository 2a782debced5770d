/** Named volumes: what they are called and how large they are. `native/ticket/src/volume.rs` has the same bounds. */
import { BadNoun, type Branded } from './brand.ts'

/** Of a volume or a snapshot; it becomes a folder of spawn's. */
export type VolumeName = Branded<string, 'VolumeName'>
const volumeName = /^[a-z0-9][a-z0-9-]{0,62}$/u

const isVolumeName = (input: unknown): input is VolumeName =>
  typeof input === 'string' && volumeName.test(input)

/** @throws BadNoun */
export function parseVolumeName(input: unknown): VolumeName {
  if (isVolumeName(input)) return input
  throw new BadNoun('volume name', 'must be 1 to 63 of a-z, 0-9 and -, and not begin with -')
}

/** A volume is whole mebibytes. */
export type VolumeBytes = Branded<number, 'VolumeBytes'>
const VOLUME_BYTES_UNIT = 2 ** 20
export const VOLUME_BYTES_MIN: number = 64 * 2 ** 20
export const VOLUME_BYTES_MAX: number = 256 * 2 ** 30

const isVolumeBytes = (input: unknown): input is VolumeBytes =>
  typeof input === 'number' &&
  input >= VOLUME_BYTES_MIN &&
  input <= VOLUME_BYTES_MAX &&
  input % VOLUME_BYTES_UNIT === 0

/** @throws BadNoun */
export function parseVolumeBytes(input: unknown): VolumeBytes {
  if (isVolumeBytes(input)) return input
  throw new BadNoun('size of a volume', 'must be whole MiB, 64 MiB to 256 GiB, in bytes')
}

/** What can be done with a volume, or with a snapshot of one. */
export const VOLUME_OPERATIONS = [
  'create',
  'remove',
  'grow',
  'snapshot',
  'restore',
  'export',
] as const
export type VolumeOperation = (typeof VOLUME_OPERATIONS)[number]

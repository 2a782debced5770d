/** The size of a pod's machine. The VMM holds the same limits. */
import { BadNoun, type Branded } from './brand.ts'

/** Guest memory in MiB: even, so that huge pages can back all of it. */
export type MemoryMib = Branded<number, 'MemoryMib'>
export const MEMORY_MIB_MIN = 128
/** What the VMM lays out: 3 GiB below the devices, the rest from 4 GiB on. */
export const MEMORY_MIB_MAX = 16_384

const isMemoryMib = (input: unknown): input is MemoryMib =>
  typeof input === 'number' && input % 2 === 0 && input >= MEMORY_MIB_MIN && input <= MEMORY_MIB_MAX

/** @throws BadNoun */
export function parseMemoryMib(input: unknown): MemoryMib {
  if (isMemoryMib(input)) return input
  throw new BadNoun('memory_mib', `must be an even integer, ${MEMORY_MIB_MIN} to ${MEMORY_MIB_MAX}`)
}

/** Virtual CPUs of a pod. */
export type Vcpus = Branded<number, 'Vcpus'>
export const VCPUS_MIN = 1
export const VCPUS_MAX = 8

const isVcpus = (input: unknown): input is Vcpus =>
  typeof input === 'number' && Number.isInteger(input) && input >= VCPUS_MIN && input <= VCPUS_MAX

/** @throws BadNoun */
export function parseVcpus(input: unknown): Vcpus {
  if (isVcpus(input)) return input
  throw new BadNoun('vcpus', `must be an integer, ${VCPUS_MIN} to ${VCPUS_MAX}`)
}

/** What a launch gets that asked for no size: the smallest template of the catalogue. */
export const DEFAULT_MEMORY_MIB: MemoryMib = parseMemoryMib(128)
export const DEFAULT_VCPUS: Vcpus = parseVcpus(1)

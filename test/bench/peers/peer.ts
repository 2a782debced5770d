/** What is measured of both programs, in the same words. */
import type { Vm } from './vm.ts'

/** (1 CPU, 128 MiB), as both projects measure. */
export const MEMORY_MIB = 128

/** A virtual machine whose papers or files are made and that is not started yet. */
export type Startable = () => Promise<Vm>

export interface Peer {
  /** The file that a restored guest's memory is mapped from, in /proc/PID/smaps. */
  readonly memory: RegExp
  /** Ends at the guest's first instruction. */
  first(): Promise<Startable>
  /** Boots the kernel; its init resets. */
  boot(): Promise<Startable>
  /** Boots the kernel; its init measures its devices (guest/measure.c). Resolves with what it said, when it has ended. */
  measured(): Promise<string>
  /** Boots the kernel; its init waits for ever. */
  bootIdle(): Promise<Startable>
  /** From the template or snapshot; the guest waits for a byte, which it gets, and resets. */
  answer(): Promise<Startable>
  /** From the template or snapshot; the guest gets its byte and waits for ever. */
  idle(): Promise<Startable>
}

/** Time as records need it: wall clock for people, CLOCK_BOOTTIME for deadlines, ids by time. */
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'

export interface Clock {
  /** RFC 3339 UTC with six decimals. */
  now(): string
  /** CLOCK_BOOTTIME in nanoseconds. */
  boottimeNs(): bigint
  /** Of this boot of the host. */
  readonly bootId: string
  /** A fresh UUID version 7 (RFC 9562). */
  uuid(): string
}

/** As many records as fit in a millisecond stay in no order: order is the log's index. */
function uuidV7(milliseconds: number): string {
  const bytes = randomBytes(16)
  bytes.writeUIntBE(milliseconds, 0, 6)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x70, 6)
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  const hex = bytes.toString('hex')
  return [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join('-')
}

/** /proc/uptime is CLOCK_BOOTTIME, cut to hundredths of a second: early, never late. */
function readBoottimeNs(): bigint {
  const [uptime = ''] = readFileSync('/proc/uptime', 'latin1').split(' ')
  const [seconds = '', hundredths = ''] = uptime.split('.')
  if (!/^\d+$/u.test(seconds) || !/^\d\d$/u.test(hundredths)) {
    throw new Error('/proc/uptime does not hold the time since boot')
  }
  return BigInt(seconds) * 1_000_000_000n + BigInt(hundredths) * 10_000_000n
}

/** The host's clocks. */
export function systemClock(): Clock {
  return {
    now: () => new Date().toISOString().replace('Z', '000Z'),
    boottimeNs: readBoottimeNs,
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim(),
    uuid: () => uuidV7(Date.now()),
  }
}

/** Member `deadline` of a launch.intent: so many milliseconds from now. */
export const deadlineIn = (clock: Clock, ms: number): { readonly boottime_ns: string } => ({
  boottime_ns: String(clock.boottimeNs() + BigInt(ms) * 1_000_000n),
})

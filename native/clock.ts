/** The clock that tickets are dated by: CLOCK_BOOTTIME, which counts while the machine sleeps. */
import { readFileSync } from 'node:fs'

/**
 * Nanoseconds since boot, in steps of 10 ms: Node reads CLOCK_MONOTONIC only, and /proc/uptime is
 * the kernel's boot time (fs/proc/uptime.c).
 */
export function boottimeNs(): bigint {
  const [seconds = '', hundredths = ''] =
    readFileSync('/proc/uptime', 'utf8').split(' ')[0]?.split('.') ?? []
  if (!/^\d+$/u.test(seconds) || !/^\d\d$/u.test(hundredths)) {
    throw new Error('/proc/uptime does not say how long the machine is up')
  }
  return BigInt(seconds) * 1_000_000_000n + BigInt(hundredths) * 10_000_000n
}

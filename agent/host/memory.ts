/** Memory that VMs of different tenants could share, and whether enough is left for templates. */
import { type HostCheck, ok, severe, unknown, warning } from './check.ts'
import type { HostRoot } from './root.ts'

/**
 * Kernel same-page merging shares equal pages of different VMs: the time of a write then tells what
 * another VM has in memory, and a bit flipped there is flipped for both.
 */
export async function ksm(root: HostRoot): Promise<HostCheck> {
  const id = 'ksm'
  const run = await root.text('sys/kernel/mm/ksm/run')
  if (run === null) {
    const seen = (await root.names('sys/kernel/mm')) !== null
    return seen ? ok(id, 'not in this kernel') : unknown(id, 'Whether pages are merged (ksm/run)')
  }
  if (!/^[012]$/u.test(run)) return unknown(id, 'Whether pages are merged (ksm/run)')
  const shared = await root.text('sys/kernel/mm/ksm/pages_shared')
  if (run !== '1' && (shared ?? '0') === '0') return ok(id, 'off')
  return severe(
    id,
    run === '1'
      ? 'KSM merges equal pages: a guest can find out by timing what another has in memory.'
      : 'KSM is stopped, and pages that it merged are still shared between processes.',
    'echo 2 > /sys/kernel/mm/ksm/run, and keep ksmtuned and the like from starting.',
  )
}

/** MiB: tenants' copies of templates (native/spawn, 1 GiB) beside the build of the largest. */
const TEMPLATES_MIB = 1024 + 2 * 256 + 64

/** No part of the findings that launches name: the figure changes with each of them. */
export async function freeMemory(root: HostRoot): Promise<HostCheck> {
  const id = 'memory'
  const text = (await root.text('proc/meminfo')) ?? ''
  const kib = /^MemAvailable:\s+(\d+) kB$/mu.exec(text)?.[1]
  if (kib === undefined)
    return warning(
      id,
      'How much memory is free could not be told.',
      'Let the agent’s user read /proc/meminfo.',
    )
  const free = Math.floor(Number(kib) / 1024)
  if (free >= TEMPLATES_MIB) return ok(id, `${free} MiB free`)
  return warning(
    id,
    `${free} MiB free; templates and tenants’ copies of them want ${TEMPLATES_MIB}`,
    'Give out smaller quotas, end pods, or add memory.',
  )
}

/** What holds a VMM that was taken over: its cgroup, and Landlock. */
import type { HostDescription } from '../../native/spawn-answers.ts'
import { type HostCheck, ok, warning } from './check.ts'
import { type HostRoot, LONG_TEXT_BYTES } from './root.ts'

const CONTROLLERS = ['memory', 'cpu', 'pids']

/** Mount points of cgroup file systems: type and place. */
function mountsOf(mountinfo: string): readonly { readonly type: string; readonly at: string }[] {
  return mountinfo.split('\n').flatMap((line) => {
    const [left = '', right = ''] = line.split(' - ')
    const [type = ''] = right.split(' ')
    const at = left.split(' ')[4] ?? ''
    return type === 'cgroup' || type === 'cgroup2' ? [{ type, at }] : []
  })
}

/**
 * Version 2 alone puts a VMM into its group as it is born and ends a group as a whole; spawn works on
 * version 1 too, where it is moved there before it runs anything.
 */
export async function cgroups(root: HostRoot): Promise<HostCheck> {
  const id = 'cgroups'
  const mounts = mountsOf((await root.text('proc/self/mountinfo', LONG_TEXT_BYTES)) ?? '')
  const unified = mounts.find((mount) => mount.type === 'cgroup2')
  const available =
    unified === undefined ? '' : ((await root.text(`${unified.at}/cgroup.controllers`)) ?? '')
  const has = available.split(/\s+/u)
  if (CONTROLLERS.every((name) => has.includes(name))) return ok(id, 'version 2')
  const old = mounts.some((mount) => mount.type === 'cgroup')
  const layout = old && unified !== undefined ? 'version 1 beside version 2' : 'version 1'
  return warning(
    id,
    old
      ? `The controllers of cgroups are those of ${layout}: limits hold, but a group that is out of memory does not end as one.`
      : 'No cgroups with memory, cpu and pids are seen from here.',
    'Boot with systemd.unified_cgroup_hierarchy=1, or without cgroup_no_v1= and the like.',
  )
}

/** The last of several walls: the VMM's root is empty and its filters have no open. */
export function landlock({ host }: HostDescription): HostCheck {
  const id = 'landlock'
  if (host.landlock !== null) return ok(id, `version ${host.landlock}`)
  return warning(
    id,
    'This kernel has no Landlock, or has it switched off: the jail of a VMM has one wall less.',
    'Run Linux 5.13 or newer with CONFIG_SECURITY_LANDLOCK, and landlock in lsm= where that is given.',
  )
}

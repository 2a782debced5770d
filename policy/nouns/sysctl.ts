/**
 * Parameters of the kernel that a pod may have of its own (`sysctl(8)`).
 *
 * Each belongs to the pod's network or IPC namespace: nobody else's kernel behaves differently, at level container
 * neither. What reaches further (forwarding, filters of source addresses, buffers of all sockets) is not listed, even
 * where the kernel would take it. native/ticket/src/sysctls.rs has the same names.
 */
import { BadNoun } from './brand.ts'

const OWN_QUEUES = 'bounds the POSIX message queues of the pod’s IPC namespace'
const OWN_MESSAGES = 'bounds the System V messages of the pod’s IPC namespace'
const OWN_SEGMENTS =
  'bounds the System V shared memory of the pod’s IPC namespace, which is its own memory'
const OWN_TIMES = 'times of the pod’s own connections'
const OWN_PORTS = 'which ports of its own network namespace the pod’s programs take'

/** Each name, and why a tenant may set it. */
export const SYSCTLS: Readonly<Record<string, string>> = {
  'fs.mqueue.msg_default': OWN_QUEUES,
  'fs.mqueue.msg_max': OWN_QUEUES,
  'fs.mqueue.msgsize_default': OWN_QUEUES,
  'fs.mqueue.msgsize_max': OWN_QUEUES,
  'fs.mqueue.queues_max': OWN_QUEUES,
  'kernel.msgmax': OWN_MESSAGES,
  'kernel.msgmnb': OWN_MESSAGES,
  'kernel.msgmni': OWN_MESSAGES,
  'kernel.sem': 'bounds the System V semaphores of the pod’s IPC namespace',
  'kernel.shm_rmid_forced': OWN_SEGMENTS,
  'kernel.shmall': OWN_SEGMENTS,
  'kernel.shmmax': OWN_SEGMENTS,
  'kernel.shmmni': OWN_SEGMENTS,
  'net.core.somaxconn': 'length of the pod’s own listen queues',
  'net.ipv4.ip_local_port_range': OWN_PORTS,
  'net.ipv4.ip_local_reserved_ports': OWN_PORTS,
  'net.ipv4.ip_unprivileged_port_start': OWN_PORTS,
  'net.ipv4.ping_group_range':
    'which of the pod’s groups may send echo requests from its own address',
  'net.ipv4.tcp_fin_timeout': OWN_TIMES,
  'net.ipv4.tcp_keepalive_intvl': OWN_TIMES,
  'net.ipv4.tcp_keepalive_probes': OWN_TIMES,
  'net.ipv4.tcp_keepalive_time': OWN_TIMES,
  'net.ipv4.tcp_max_syn_backlog': 'length of the pod’s own queues of half-open connections',
  'net.ipv4.tcp_rmem': 'buffers of the pod’s own connections',
  'net.ipv4.tcp_syn_retries': OWN_TIMES,
  'net.ipv4.tcp_syncookies': 'how the pod’s own listeners meet a flood',
  'net.ipv4.tcp_tw_reuse': OWN_TIMES,
  'net.ipv4.tcp_wmem': 'buffers of the pod’s own connections',
  'net.ipv6.conf.all.disable_ipv6': 'gives up IPv6 in the pod’s own network namespace',
  'net.unix.max_dgram_qlen': 'length of the pod’s own queues of local datagrams',
}

/**
 * The most that a number of these may be: what waits in a pod's queues, and is buffered for its connections, is memory of
 * the host's kernel at level container, and not all of it counts as the pod's. native/ticket/src/sysctls.rs has the same.
 */
const MOST: Readonly<Record<string, number>> = {
  'net.core.somaxconn': 65_535,
  'net.ipv4.tcp_max_syn_backlog': 65_535,
  'net.ipv4.tcp_rmem': 16_777_216,
  'net.ipv4.tcp_wmem': 16_777_216,
  'net.unix.max_dgram_qlen': 4096,
}

export const SYSCTLS_MAX = 32
const VALUE = /^[ -~]{1,256}$/u

export interface Sysctl {
  readonly name: string
  readonly value: string
}

/** What is no number is the kernel's to refuse. */
const isTooMuch = ({ name, value }: Sysctl): boolean =>
  value.split(' ').some((word) => /^\d+$/u.test(word) && Number(word) > (MOST[name] ?? Infinity))

/** Sorted by name; whether a name may be set is the decision's to say. @throws BadNoun */
export function parseSysctls(input: Readonly<Record<string, string>>): readonly Sysctl[] {
  const sysctls = Object.entries(input).map(([name, value]) => ({ name, value }))
  const isFine = ({ name, value }: Sysctl): boolean =>
    /^[a-z0-9_.]{1,64}$/u.test(name) && VALUE.test(value)
  const large = sysctls.find(isTooMuch)
  if (large !== undefined) {
    throw new BadNoun(`sysctl ${large.name}`, `must be at most ${MOST[large.name]}`)
  }
  if (sysctls.length <= SYSCTLS_MAX && sysctls.every(isFine)) {
    return sysctls.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  }
  throw new BadNoun(
    'sysctls',
    `must be at most ${SYSCTLS_MAX} names with dots, as net.core.somaxconn, with values of 1 to 256 printable characters`,
  )
}

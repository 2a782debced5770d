/**
 * Every code that the end of a launch or of a pod may have: at which stage that is, who can do something about it, and
 * what. test/agent/debug.test.ts holds it against the codes that policy, spawn, VMM and guest-init have.
 */

/** In the order in which a launch comes by them. */
export const STAGES = [
  'REQUEST',
  'IMAGE_PULL',
  'VERIFY',
  'POLICY',
  'BUILD',
  'QUOTA',
  'RECORD',
  'TICKET',
  'SPAWN',
  'JAIL',
  'NETWORK',
  'VMM_START',
  'RESTORE',
  'GUEST_INIT',
  'APP_START',
  'RUNNING',
  'ENDED',
] as const
export type Stage = (typeof STAGES)[number]

export interface Step {
  readonly stage: Stage
  /** Who can mend it. */
  readonly who: 'tenant' | 'provider'
  /** A sentence: what to do. */
  readonly next: string
}

/** Codes -> the sentence that they share. */
type Group = readonly [codes: string, who: Step['who'], next: string]

const AGAIN = 'Launch it again; if it comes again, the agent’s and spawn’s logs have why.'
const BUG = 'Keep the log and tell who maintains Casemate: a fault of it, or a guest that attacks.'

const GROUPS: Readonly<Record<Stage, readonly Group[]>> = {
  REQUEST: [
    ['HOST_DRAINING', 'tenant', 'Launch it on another host, or when this one is in service again.'],
    ['BAD_REQUEST', 'tenant', 'Correct what the message names, and launch again.'],
    ['INTERNAL', 'provider', 'The agent’s log has the reason, by the launch’s id.'],
    ['SHUTTING_DOWN', 'tenant', 'Send it again when the agent is back.'],
  ],
  IMAGE_PULL: [
    [
      'REGISTRY_UNAVAILABLE',
      'tenant',
      'See that the registry answers from the host, then launch again.',
    ],
    ['REGISTRY_REFUSED', 'tenant', 'Give a login that may pull: `casemate run --authfile`.'],
    [
      'REGISTRY_ADDRESS_FORBIDDEN',
      'provider',
      'List the registry in `registries` of agent.json, or use a public one.',
    ],
    [
      'IMAGE_UNKNOWN IMAGE_REFERENCE_INVALID',
      'tenant',
      'Correct the reference: registry, repository, tag or digest.',
    ],
    [
      'IMAGE_DIGEST_MISMATCH',
      'tenant',
      'Push the image again: the registry gives other bytes than its digests say.',
    ],
    [
      'IMAGE_MANIFEST_INVALID IMAGE_PLATFORM_MISSING IMAGE_TOO_LARGE',
      'tenant',
      'Build and push the image as the message asks for.',
    ],
    ['IMAGE_BUSY', 'tenant', 'Wait until images that are under way are done, then launch again.'],
    ['IMAGE_QUOTA_EXCEEDED', 'tenant', 'Stop pods with other images, or use smaller ones.'],
    [
      'IMAGE_STORAGE_FULL',
      'provider',
      'Free space on the file system of the state directory: `casemate gc`, `casemate doctor`.',
    ],
  ],
  VERIFY: [
    ['IMAGE_UNSIGNED', 'tenant', 'Sign the image by its digest: `casemate image sign`.'],
    [
      'IMAGE_SIGNER_NOT_ACCEPTED',
      'tenant',
      'Sign with a key of the tenant’s image rule, or have the rule changed.',
    ],
    [
      'IMAGE_SIGNATURE_MISMATCH',
      'tenant',
      'Sign this digest in this repository: the signature is another’s.',
    ],
    ['SIGNING_KEY_INVALID', 'tenant', 'Use a key that can be read and can sign images.'],
  ],
  POLICY: [
    [
      'IMAGE_NOT_PERMITTED',
      'provider',
      'Add a rule for the image: `casemate tenant change --image-rule`.',
    ],
    [
      'IMAGE_CONFIG_INVALID',
      'tenant',
      'Correct command, user or environment in the image or the request.',
    ],
    ['TENANT_SUSPENDED', 'provider', 'Resume the tenant: `casemate tenant change --state active`.'],
    [
      'HOST_UNSAFE',
      'provider',
      'Mend the findings in `casemate doctor`, or set them aside for a time.',
    ],
    [
      'ISOLATION_NOT_PERMITTED CAPABILITY_NOT_PERMITTED ULIMIT_NOT_PERMITTED SYSCTL_NOT_PERMITTED MOUNT_CONFLICT MOUNT_TOO_LARGE HEALTHCHECK_MISSING',
      'tenant',
      'Ask for less, or for the level that is permitted.',
    ],
    [
      'EGRESS_NOT_PERMITTED PORT_NOT_PERMITTED NETWORK_NOT_AVAILABLE',
      'tenant',
      'Ask for what the tenant may have: `casemate tenant show`.',
    ],
    [
      'POLICY_DENIED POLICY_ERROR',
      'provider',
      'Look at the policies that the facts and the record name.',
    ],
    [
      'ISOLATION_NOT_AVAILABLE OPTION_NOT_AT_LEVEL RESTART_NEEDS_OPEN_REGISTRY',
      'tenant',
      'Leave out what the message names.',
    ],
    ['CONFIG_NOT_FOUND SECRET_NOT_FOUND', 'tenant', 'Store it under that name, then launch again.'],
    ['VOLUME_UNKNOWN', 'tenant', 'Create a volume of that name, then launch again.'],
    ['VOLUME_IN_USE', 'tenant', 'Stop the pod that has the volume; the message names it.'],
    [
      'VOLUME_VM_ONLY',
      'tenant',
      'A virtual machine had this volume: use it at level vm, or take another one.',
    ],
    [
      'HOST_PATH_UNKNOWN HOST_PATH_READ_ONLY HOST_PATH_LEVEL',
      'tenant',
      'Ask for a path of the host that the provider has for the tenant, as it has it, at level container.',
    ],
    [
      'HOST_PATH_MISSING',
      'tenant',
      'Correct the sub-path, which leads through no link; the path itself is the provider’s.',
    ],
    [
      'HOST_PATH_UNSAFE',
      'provider',
      'See `host_paths` in spawn.json: directories above it have to be root’s alone, and it what the entry says.',
    ],
  ],
  BUILD: [
    [
      'IMAGE_LAYER_INVALID',
      'tenant',
      'Build the image anew: a layer is no archive that makes one tree.',
    ],
    [
      'IMAGE_BUILD_FAILED',
      'provider',
      'The agent’s log has why the worker failed; `casemate doctor`.',
    ],
    ['WORKERS_BUSY', 'tenant', 'Launch it again when fewer images are built.'],
  ],
  QUOTA: [
    [
      'QUOTA_EXCEEDED',
      'tenant',
      'Stop pods or ask for less: the facts have asked, used and limit.',
    ],
    [
      'LAUNCH_RATE_EXCEEDED LAUNCHES_FAILING',
      'tenant',
      'Wait for `retry_after_s` of the facts; see why launches fail.',
    ],
    ['NETWORK_FULL', 'tenant', 'Stop pods on the network, or launch without one.'],
  ],
  RECORD: [
    [
      'AUDIT_UNAVAILABLE',
      'provider',
      'Make the log writable: disk and signer, as `casemate doctor` says.',
    ],
  ],
  TICKET: [
    [
      'TICKET TICKET_MALFORMED TICKET_MISSING TICKET_SIGNATURE TICKET_KEY_UNKNOWN TICKET_NOT_INCLUDED TICKET_RECORD TICKET_SPEC_DIGEST',
      'provider',
      'See that spawn.json has this host’s log key; otherwise something between agent and spawn is changed: treat it as an attack.',
    ],
    [
      'TICKET_EXPIRED TICKET_TOO_FAR',
      'tenant',
      'Launch it again: the host was too slow, or its clock was set.',
    ],
    [
      'TICKET_HOST TICKET_BOOT TICKET_SPENT TICKET_POD TICKET_REQUEST_DIGEST',
      'provider',
      'A ticket is for one launch on one boot of one host: see who uses one twice.',
    ],
    [
      'SPEC_MALFORMED SPEC_MISMATCH LEVEL_NOT_LISTED KVM_CLASS SOFTWARE_KVM_NOT_ALLOWED',
      'provider',
      'Agent and spawn differ: start both from one version and configuration.',
    ],
  ],
  SPAWN: [
    ['LAUNCH_FAILED', 'tenant', AGAIN],
    [
      'SPAWN_UNAVAILABLE SPAWN_UNREACHABLE SPAWN_GONE SPAWN_STOPPING SPAWN_TIMEOUT SPAWN_PROTOCOL',
      'provider',
      'Start casemate-spawn again: `casemate doctor`.',
    ],
    [
      'HOST_FULL SPAWN_BUSY PODS_NOT_FORGOTTEN',
      'tenant',
      'Launch it again later, or on another host.',
    ],
    [
      'SPAWN_STORAGE',
      'provider',
      'Free space on the file systems of spawn’s state and run directories.',
    ],
    [
      'SPEC_NOT_OF_THIS_HOST HOST_PATH_CHANGED',
      'tenant',
      'Launch it again: kernel, VMM, template or root’s list of paths changed since it was decided.',
    ],
    [
      'REQUEST REQUEST_SIZE REQUEST_DESCRIPTORS REQUEST_TIMEOUT DESCRIPTORS PEER_NOT_ALLOWED POD_EXISTS',
      'provider',
      'Start agent and spawn from one version.',
    ],
    [
      'LEVEL_NOT_AVAILABLE CONTAINER_UNAVAILABLE STARTER_GONE',
      'provider',
      'See `containers` in `casemate doctor`; start spawn again.',
    ],
  ],
  JAIL: [
    [
      'JAIL_FAILED CGROUP',
      'provider',
      'See what the message names: namespaces, cgroups, user ids of VMs.',
    ],
    [
      'HOST_RESOURCES',
      'tenant',
      'Launch it again later: the kernel has no process or descriptor to give.',
    ],
  ],
  NETWORK: [
    ['PORT_TAKEN', 'tenant', 'Publish another port, or stop who has it.'],
    [
      'NETWORK_FAILED',
      'provider',
      'See the step in the message: `ip`, `nft`, the modules tun, bridge and veth, ip_forward.',
    ],
    ['APP_NETWORK', 'provider', BUG],
  ],
  VMM_START: [
    [
      'ISOLATION_UNAVAILABLE KVM_UNAVAILABLE',
      'provider',
      'Give the host usable KVM: `casemate doctor` has why it is not.',
    ],
    [
      'KVM KERNEL_LOAD MACHINE DESCRIPTOR LAUNCH_DOCUMENT',
      'provider',
      'See `casemate doctor --vm`; run set-up again so that kernel and VMM fit.',
    ],
    [
      'HOST_PATH',
      'provider',
      'Have the path of the host on a file system that takes a mapping of ids: ext4, xfs or btrfs.',
    ],
    [
      'SECCOMP VMM_FILTERS',
      'provider',
      'The kernel took no filter, or another than was decided: run set-up again.',
    ],
  ],
  RESTORE: [
    [
      'TEMPLATE_STATE TEMPLATE_FAILED TEMPLATE_SHAPE',
      'provider',
      'The template is stale: end spawn, remove its templates of this boot, start it again.',
    ],
  ],
  GUEST_INIT: [
    [
      'BOOT_TIMEOUT GUEST_SILENT',
      'provider',
      'See the boot lines. A busy host or software KVM is too slow: give it room, then launch again.',
    ],
  ],
  APP_START: [
    [
      'APP_NOT_FOUND APP_NOT_EXECUTABLE',
      'tenant',
      'Correct the command: it has to be a program of the image for x86-64.',
    ],
    [
      'APP_USER APP_CWD',
      'tenant',
      'Correct user or working directory: the image has to have them.',
    ],
    [
      'APP_MOUNT APP_CONFIG APP_SECCOMP APP_START',
      'tenant',
      'See the boot lines for the step that failed.',
    ],
    [
      'APP_RUNTIME',
      'provider',
      'The message has runc’s own words: mend what it lacks on the host, as `casemate doctor` may name it.',
    ],
  ],
  RUNNING: [
    [
      'GUEST_PANIC GUEST_CRASH GUEST_GONE',
      'tenant',
      'See the boot lines for the last words of the guest’s kernel; more memory may be what it lacks.',
    ],
    ['GUEST_PROTOCOL DEVICE_QUEUE VMM_PROTOCOL VMM_EXIT VMM_SIGNAL VMM_SECCOMP', 'provider', BUG],
    [
      'VERITY',
      'provider',
      'A block of the image differs from what was signed: remove the tenant’s cached images, look at the disk, launch again.',
    ],
    [
      'IO',
      'provider',
      'Reading or writing a file of the pod failed: look at disk and space of the host.',
    ],
    [
      'VMM_OOM',
      'provider',
      'The VMM itself ran out of its budget beside the guest’s memory: give the host memory, and tell who maintains Casemate.',
    ],
    ['APP_OOM', 'tenant', 'Give the pod more memory (`--memory`), or have the app use less.'],
  ],
  ENDED: [
    ['APP_EXIT APP_SIGNAL', 'tenant', 'The app ended: `casemate logs` has what it said.'],
    [
      'KILLED STOP_TIMEOUT',
      'tenant',
      'It was told to stop. With STOP_TIMEOUT it did not in its time: `--stop-timeout`.',
    ],
    [
      'SPAWN_STOPPED SPAWN_LOST NOT_TAKEN_OVER VMM_END_UNKNOWN',
      'provider',
      'Host or spawn went down with it: launch it again, or use `--restart always`.',
    ],
  ],
}

const STEPS: ReadonlyMap<string, Step> = new Map(
  STAGES.flatMap((stage) =>
    GROUPS[stage].flatMap(([codes, who, next]) =>
      codes.split(' ').map((code) => [code, { stage, who, next }] as const),
    ),
  ),
)

/** null: another version's code. */
export const stepOf = (code: string): Step | null => STEPS.get(code) ?? null

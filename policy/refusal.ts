/**
 * A decision against. Not an error of the program: it is recorded, and shown to who asked.
 */

/** Every reason there is to refuse. The code is the contract; the sentence is for people. */
export const REFUSAL_CODES = [
  /** No signature at all was found for the image. */
  'IMAGE_UNSIGNED',
  /** Signatures were found, and none of them by enough keys that the rules accept. */
  'IMAGE_SIGNER_NOT_ACCEPTED',
  /** An accepted key signed, but for another digest or another repository. */
  'IMAGE_SIGNATURE_MISMATCH',
  /** No rule of the tenant, or of the provider, speaks of this image. */
  'IMAGE_NOT_PERMITTED',
  /** The image's config asks for something that cannot be run: no command, a bad user. */
  'IMAGE_CONFIG_INVALID',
  /** Something needs a health check, and the pod has none. */
  'HEALTHCHECK_MISSING',
  /** The level asked for is not permitted to this tenant. Facts: level, permitted. */
  'ISOLATION_NOT_PERMITTED',
  /** The level is permitted, but this version of Casemate has no launcher for it. */
  'ISOLATION_NOT_AVAILABLE',
  /** The host cannot give the level now: no usable KVM. Never answered by a weaker level. */
  'ISOLATION_UNAVAILABLE',
  /** The host fails a severe check, and no exception is in force. Facts: findings, fixes. */
  'HOST_UNSAFE',
  /** The policy denies, for another reason than the level. */
  'POLICY_DENIED',
  /** The policy could not be evaluated without error, and so denies. */
  'POLICY_ERROR',
  /** A capability was asked for that the tenant's trust does not reach, or that would be one over the host. */
  'CAPABILITY_NOT_PERMITTED',
  /** A limit was asked for that only a virtual machine has to itself. Facts: ulimit, level. */
  'ULIMIT_NOT_PERMITTED',
  /** At the level there is no such thing of the pod's own. Facts: option, level. */
  'OPTION_NOT_AT_LEVEL',
  /** Two mounts at one place, or more than a pod has. Facts: path. */
  'MOUNT_CONFLICT',
  /** A mount in memory that is larger than the pod's. Facts: path, size, limit. */
  'MOUNT_TOO_LARGE',
  /** The tenant has no config of that name. Facts: config. */
  'CONFIG_NOT_FOUND',
  /** The tenant has no secret of that name. Facts: secret. */
  'SECRET_NOT_FOUND',
  /** A parameter of the kernel that is not the pod's alone. Facts: sysctl. */
  'SYSCTL_NOT_PERMITTED',
  /** The tenant's quota does not hold what was asked for. Facts: what, asked, used, limit. */
  'QUOTA_EXCEEDED',
  /** This version has no network of that name, or not at that level. Facts: network. */
  'NETWORK_NOT_AVAILABLE',
  /** The launch asks to reach what its tenant may not. Facts: egress. */
  'EGRESS_NOT_PERMITTED',
  /** The tenant may not publish the port that the launch asks for. Facts: address, port. */
  'PORT_NOT_PERMITTED',
  /** The port is in use on this host. Facts: address, port. */
  'PORT_TAKEN',
  /** No address is left, of the tenant's network or for one. */
  'NETWORK_FULL',
  /** Launches of the tenant failed too often of late. Facts: retry_after_s. */
  'LAUNCHES_FAILING',
  /** The tenant's launches of a minute are used up. Facts: what, limit, retry_after_s. */
  'LAUNCH_RATE_EXCEEDED',
  /** The tenant has no volume of that name. Facts: volume. */
  'VOLUME_UNKNOWN',
  /** Another pod has the volume. Facts: volume, pod. */
  'VOLUME_IN_USE',
  /** A virtual machine could write to the volume, so no weaker level gets it. Facts: volume, level. */
  'VOLUME_VM_ONLY',
  /** Root lists no path of the host of that name for the tenant. Facts: host_path. */
  'HOST_PATH_UNKNOWN',
  /** Nobody may write to the path of the host. Facts: host_path. */
  'HOST_PATH_READ_ONLY',
  /** Only containers get paths of the host. Facts: host_path, level. */
  'HOST_PATH_LEVEL',
  /** What the path of the host, or the place below it, leads to is not there, or behind a link. */
  'HOST_PATH_MISSING',
  /** Others than root decide what is at the path of the host, or it is not what root's list says. */
  'HOST_PATH_UNSAFE',
  /** The tenant is suspended and launches nothing. */
  'TENANT_SUSPENDED',
] as const
export type RefusalCode = (typeof REFUSAL_CODES)[number]

/** Whether a string, as from a policy's annotation or a stored row, is one of the codes. */
export const isRefusalCode = (input: unknown): input is RefusalCode =>
  REFUSAL_CODES.some((code) => code === input)

/** Plain data about a refusal: for the record, the problem document and the CLI. */
export type Facts = Readonly<Record<string, string | number | boolean | null | readonly string[]>>

export class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly code: RefusalCode
  readonly facts: Facts
  /** What caused it: Cedar policy ids, `invariant.*` for the walls beside Cedar; often empty. */
  readonly policyIds: readonly string[]

  constructor(
    code: RefusalCode,
    sentence: string,
    facts: Facts,
    policyIds: readonly string[] = [],
  ) {
    super(sentence)
    this.code = code
    this.facts = facts
    this.policyIds = policyIds
  }
}

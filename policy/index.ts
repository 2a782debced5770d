/** What the policy folder offers. Canonical JSON is imported from policy/canonical.ts directly. */
export {
  activatePolicies,
  BadPolicySet,
  type Finding,
  POLICIES_MAX,
  POLICY_BYTES_MAX,
  POLICY_SET_BYTES_MAX,
} from './cedar/activate.ts'
export { DEFAULT_POLICIES, type PolicyTexts } from './cedar/defaults.ts'
export type { ActivePolicies, PolicyNote } from './cedar/policies.ts'
export type { ExecQuery, FileQuery, LaunchQuery, Principal, VolumeQuery } from './cedar/query.ts'
export type { Verdict } from './cedar/verdict.ts'
export { decide, quotaRefusal } from './decide.ts'
export type { PolicyDecision } from './decided.ts'
export type { Evidence, EvidenceReason } from './evidence.ts'
export { decideExec, type ExecDecision } from './exec.ts'
export type {
  Charge,
  FileFacts,
  HostFacts,
  HostPathFacts,
  ImageConfig,
  ImageFacts,
  ImageHealthcheck,
  LaunchQuestion,
  LaunchRequest,
  QuotaLine,
  Quotas,
  Resolver,
  TenantFacts,
} from './facts.ts'
export type { ImageKey } from './image-key.ts'
export {
  type CosignKeyAuthority,
  IMAGE_RULE_BYTES_MAX,
  type ImageRule,
  parseImageRule,
  type Requirement,
  type Rule,
} from './image-rule.ts'
export {
  type AcceptedSigner,
  type ImageName,
  judgeImage,
  keysToTry,
  type ResolvedImage,
  type RulePair,
} from './image-verdict.ts'
export { BadNoun, type Branded } from './nouns/brand.ts'
export {
  CAPABILITIES,
  type Capability,
  DOCKER_DEFAULT_CAPABILITIES,
  parseCapability,
  UNTRUSTED_DEFAULT_CAPABILITIES,
} from './nouns/capability.ts'
export { type Digest, parseDigest } from './nouns/digest.ts'
export {
  beyondEgress,
  EGRESS_MAX,
  EGRESS_WORD_MAX,
  type Egress,
  egressWords,
  parseEgress,
} from './nouns/egress.ts'
export {
  FILE_BYTES_MAX,
  FILES_BYTES_MAX,
  type FileName,
  type FileWords,
  parseFileName,
  parseFiles,
  STORED_KINDS,
  type StoredKind,
  type WantedFile,
} from './nouns/file.ts'
export {
  HEALTH_DEFAULTS,
  HEALTH_MS_MAX,
  HEALTH_MS_MIN,
  HEALTH_RETRIES_MAX,
  type HealthCheck,
  type HealthRequest,
  type HealthTimes,
  type Probe,
  parseExecProbe,
  parseHealthPath,
  parseHealthPort,
  parseHealthTime,
  UNHEALTHY_ACTIONS,
  type UnhealthyAction,
} from './nouns/health.ts'
export {
  type ExceptableId,
  type HostException,
  type HostFinding,
  type HostFindings,
  parseExceptableId,
  type Severity,
} from './nouns/host-finding.ts'
export { parseHostPathName, parseSubPath } from './nouns/host-path.ts'
export {
  ISOLATION_LEVELS,
  type IsolationLevel,
  KVM_CLASSES,
  type KvmClass,
  parseIsolationLevel,
  parseKvmClass,
  STRONGEST_FIRST,
} from './nouns/isolation.ts'
export {
  ANNOTATION_CHARACTERS_MAX,
  isPodName,
  LABEL_CHARACTERS_MAX,
  NOTES_MAX,
  type Notes,
  type PodName,
  parseAnnotations,
  parseLabels,
  parsePodName,
} from './nouns/label.ts'
export {
  DEFAULT_MEMORY_MIB,
  DEFAULT_VCPUS,
  MEMORY_MIB_MAX,
  MEMORY_MIB_MIN,
  type MemoryMib,
  parseMemoryMib,
  parseVcpus,
  VCPUS_MAX,
  VCPUS_MIN,
  type Vcpus,
} from './nouns/machine.ts'
export {
  MOUNTS_MAX,
  type MountPath,
  type MountWords,
  parseMode,
  parseMountPath,
  parseMounts,
  type WantedMount,
} from './nouns/mount.ts'
export {
  HOSTS_MAX,
  NAMESERVERS_MAX,
  type Names,
  NO_NAMES,
  OPTIONS_MAX,
  parseHosts,
  parseNameservers,
  parseResolverOptions,
  parseSearch,
  SEARCH_MAX,
} from './nouns/names.ts'
export {
  HOST_NETWORK,
  NETWORK_NUMBER_MAX,
  NETWORK_NUMBER_MIN,
  type NetworkName,
  NO_NETWORK,
  POD_NUMBER_MAX,
  POD_NUMBER_MIN,
  type PodNetwork,
  type PodPlace,
  parseNetworkName,
  podNetwork,
  TENANT_NETWORK,
} from './nouns/network.ts'
export {
  defaultHostname,
  type Hostname,
  type PodId,
  parseHostname,
  parsePodId,
} from './nouns/pod.ts'
export { type PodPath, parsePodPath } from './nouns/pod-path.ts'
export {
  allOf,
  PORT_WORD_MAX,
  PORTS_MAX,
  type PortRange,
  type PublishedPort,
  parsePortRanges,
  parsePublished,
  permitsPort,
  portRangeWords,
} from './nouns/ports.ts'
export {
  ARGUMENTS_BYTES_MAX,
  ARGUMENTS_MAX,
  type Arguments,
  ENVIRONMENT_BYTES_MAX,
  ENVIRONMENT_ENTRIES_MAX,
  type Environment,
  parseArguments,
  parseEnvironment,
  parseUser,
  parseWorkingDirectory,
  type User,
  type WorkingDirectory,
} from './nouns/process.ts'
export {
  isOnFailure,
  parseRestartRule,
  RESTARTS_MAX,
  type RestartRule,
  restartsMax,
} from './nouns/restart.ts'
export {
  DEFAULT_STOP_MS,
  parseSignal,
  parseStopTimeoutMs,
  SIGKILL,
  SIGTERM,
  type Signal,
  STOP_MS_MAX,
  type StopTimeoutMs,
} from './nouns/signal.ts'
export { parseSysctls, SYSCTLS, SYSCTLS_MAX, type Sysctl } from './nouns/sysctl.ts'
export { parseTenantId, parseTrust, type TenantId, TRUSTS, type Trust } from './nouns/tenant.ts'
export { GROUPS_MAX, OPEN_FILES_MAX, parseGroups, parseUlimits } from './nouns/ulimit.ts'
export {
  parseVolumeBytes,
  parseVolumeName,
  VOLUME_BYTES_MAX,
  VOLUME_BYTES_MIN,
  type VolumeBytes,
  type VolumeName,
  type VolumeOperation,
} from './nouns/volume.ts'
export type {
  CapabilitySets,
  Decision,
  Plan,
  PlannedHealth,
  PlannedLimits,
  PlannedMount,
  PlannedProcess,
  ResourceLimit,
} from './plan.ts'
export { NETWORK_RATES } from './rates.ts'
export { type Facts, isRefusalCode, REFUSAL_CODES, Refusal, type RefusalCode } from './refusal.ts'
export {
  type EndedStart,
  type NextStart,
  nextStart,
  RESTART_HEALTHY_MS,
  RESTART_MS_MAX,
  RESTART_MS_MIN,
} from './restart.ts'
export { refusedFile } from './stored-file.ts'
export { BadDocument } from './strict-members.ts'
export { decideVolume } from './volume.ts'

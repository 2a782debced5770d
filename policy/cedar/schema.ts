/**
 * The Cedar schema: what a policy may speak about. Trust and level are enumerated entities, so a
 * typing mistake in a policy (`Trust::"trustd"`) is found at activation, not at the first attack.
 *
 * `Tenant.levels` is the tenant's entry in the root-owned level file, as spawn reports it; empty where no level is
 * decided on. `Exec.user` is empty for the app's own; of `Exec.program` and `Exec.errand` (copy-in, copy-out, processes, input)
 * one is empty. `VolumeChange.operation` is create, remove, grow, snapshot, restore or export, and its size 0 where the
 * operation has none.
 */
export const CEDAR_SCHEMA = `namespace Casemate {
  entity Trust enum ["untrusted", "verified", "trusted"];
  entity IsolationLevel enum ["host", "container", "vm"];
  entity Tenant { trust: Trust, suspended: Bool, levels: Set<IsolationLevel> };
  entity Caller { tenant: Tenant };
  entity Operator;
  entity Pod { tenant: Tenant };
  entity StoredFile { tenant: Tenant };
  entity Volume { tenant: Tenant };
  type Image = { registry: String, repository: String, digest: String };
  type Signature = { accepted: Bool, keys: Set<String> };
  type Launch = {
    isolation: IsolationLevel,
    image: Image,
    signature: Signature,
    capabilities: Set<String>,
    vcpus: Long,
    memory_mib: Long,
    read_only_root: Bool,
    sysctls: Set<String>,
    files: Set<String>
  };
  type Exec = { program: String, errand: String, user: String, terminal: Bool };
  type File = { kind: String, name: String };
  type VolumeChange = { operation: String, size_bytes: Long };
  action launch appliesTo { principal: [Caller, Operator], resource: [Pod], context: Launch };
  action exec appliesTo { principal: [Caller, Operator], resource: [Pod], context: Exec };
  action volume appliesTo { principal: [Caller, Operator], resource: [Volume], context: VolumeChange };
  action store_file, show_file, remove_file appliesTo {
    principal: [Caller, Operator], resource: [StoredFile], context: File
  };
}
`

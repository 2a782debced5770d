/**
 * The policies Casemate ships. Ids are fixed: they stand in records, refusals and documents.
 *
 * `@reason` is the sentence shown when the policy decides; `@code` the refusal code of a forbid.
 * An operator adds policies beside these, or replaces them; the activation gate and the invariants
 * in invariants.ts hold whatever the text says.
 */
import { DOCKER_DEFAULT_CAPABILITIES, UNTRUSTED_DEFAULT_CAPABILITIES } from '../nouns/capability.ts'

/** Policy texts by id. */
export type PolicyTexts = Readonly<Record<string, string>>

const launch = 'action == Casemate::Action::"launch", resource is Casemate::Pod'
const exec = 'action == Casemate::Action::"exec", resource is Casemate::Pod'
const file = `action in [${['store', 'show', 'remove']
  .map((verb) => `Casemate::Action::"${verb}_file"`)
  .join(', ')}], resource is Casemate::StoredFile`
const volume = 'action == Casemate::Action::"volume", resource is Casemate::Volume'
const set = (items: readonly string[]): string => `[${items.map((item) => `"${item}"`).join(', ')}]`

export const DEFAULT_POLICIES: PolicyTexts = {
  'launch.own-tenant': `@reason("Callers launch pods of their own tenant.")
permit(principal is Casemate::Caller, ${launch})
when { principal.tenant == resource.tenant };
`,
  'launch.operator': `@reason("Operators launch pods for any tenant.")
permit(principal is Casemate::Operator, ${launch});
`,
  'tenant.suspended': `@reason("The tenant is suspended.")
@code("TENANT_SUSPENDED")
forbid(principal, ${launch})
when { resource.tenant.suspended };
`,
  'exec.own-tenant': `@reason("Callers execute programs in pods of their own tenant.")
permit(principal is Casemate::Caller, ${exec})
when { principal.tenant == resource.tenant };
`,
  'exec.operator': `@reason("Operators execute programs in any tenant's pods.")
permit(principal is Casemate::Operator, ${exec});
`,
  'exec.tenant-suspended': `@reason("The tenant is suspended.")
@code("TENANT_SUSPENDED")
forbid(principal, ${exec})
when { resource.tenant.suspended };
`,
  'file.own-tenant': `@reason("Callers keep configs and secrets of their own tenant.")
permit(principal is Casemate::Caller, ${file})
when { principal.tenant == resource.tenant };
`,
  'file.operator': `@reason("Operators keep configs and secrets for any tenant.")
permit(principal is Casemate::Operator, ${file});
`,
  'file.tenant-suspended': `@reason("The tenant is suspended.")
@code("TENANT_SUSPENDED")
forbid(
  principal,
  action in [Casemate::Action::"store_file", Casemate::Action::"show_file"],
  resource is Casemate::StoredFile
)
when { resource.tenant.suspended };
`,
  'volume.own-tenant': `@reason("Callers change volumes of their own tenant.")
permit(principal is Casemate::Caller, ${volume})
when { principal.tenant == resource.tenant };
`,
  'volume.operator': `@reason("Operators change any tenant's volumes.")
permit(principal is Casemate::Operator, ${volume});
`,
  'volume.tenant-suspended': `@reason("The tenant is suspended.")
@code("TENANT_SUSPENDED")
forbid(principal is Casemate::Caller, ${volume})
when { resource.tenant.suspended };
`,
  'isolation.untrusted-needs-vm': `@reason("Only trusted tenants may share the host's kernel.")
@code("ISOLATION_NOT_PERMITTED")
forbid(principal, ${launch})
when { context.isolation != Casemate::IsolationLevel::"vm" }
unless { resource.tenant.trust == Casemate::Trust::"trusted" };
`,
  'isolation.level-file': `@reason("The host's level file does not name the tenant for this level.")
@code("ISOLATION_NOT_PERMITTED")
forbid(principal, ${launch})
when { context.isolation != Casemate::IsolationLevel::"vm" }
unless { resource.tenant.levels.contains(context.isolation) };
`,
  'image.signature-accepted': `@reason("The image's signatures do not satisfy the image rules.")
@code("IMAGE_SIGNER_NOT_ACCEPTED")
forbid(principal, ${launch})
unless { context.signature.accepted };
`,
  'capabilities.untrusted': `@reason("The tenant's trust does not reach the capabilities asked for.")
@code("CAPABILITY_NOT_PERMITTED")
forbid(principal, ${launch})
unless {
  resource.tenant.trust == Casemate::Trust::"trusted" ||
  ${set(UNTRUSTED_DEFAULT_CAPABILITIES)}.containsAll(context.capabilities)
};
`,
  'capabilities.baseline': `@reason("No tenant gets capabilities beyond the default set.")
@code("CAPABILITY_NOT_PERMITTED")
forbid(principal, ${launch})
unless { ${set(DOCKER_DEFAULT_CAPABILITIES)}.containsAll(context.capabilities) };
`,
}

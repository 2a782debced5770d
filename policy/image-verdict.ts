/**
 * What the signatures of an image are worth under the rules: the provider's floor and the tenant's
 * rule must both hold, so a tenant can only tighten.
 */
import type { Evidence } from './evidence.ts'
import { matchesGlob } from './image-glob.ts'
import type { CosignKeyAuthority, ImageRule, Requirement, Rule } from './image-rule.ts'
import type { Digest } from './nouns/digest.ts'
import { Refusal } from './refusal.ts'

/** Fully expanded: `docker.io` and `library/busybox`, not `busybox`. */
export interface ImageName {
  readonly registry: string
  readonly repository: string
}

/** One image, its reference resolved to a digest once. */
export interface ResolvedImage extends ImageName {
  /** The manifest's digest; everything after the resolution goes by it. */
  readonly digest: Digest
}

/** A key that counted towards a requirement. */
export interface AcceptedSigner {
  readonly keyId: string
  /** The key's name in the rule. */
  readonly key: string
  /** Name of the rule that asked for it. */
  readonly rule: string
  readonly form: Evidence['form']
  /** Digest of the blob that held the signature. */
  readonly artifact: string
}

export interface RulePair {
  /** null: the provider asks for nothing beside the tenant's rule. */
  readonly floor: ImageRule | null
  /** null: the tenant has no rule yet, and so runs no image. */
  readonly tenant: ImageRule | null
}

const nameOf = (image: ImageName): string => `${image.registry}/${image.repository}`

const rulesFor = (rule: ImageRule, image: ImageName): readonly Rule[] =>
  rule.rules.filter((one) => one.match.some((glob) => matchesGlob(glob, nameOf(image))))

/** The keys to try on the image's signatures, each once: whoever verifies needs no others. */
export function keysToTry(
  rules: RulePair,
  image: ImageName,
): readonly { readonly keyId: Digest; readonly pem: string }[] {
  const keys = new Map<Digest, string>()
  for (const rule of [rules.floor, rules.tenant]) {
    if (rule === null) continue
    for (const requirement of rulesFor(rule, image).flatMap((one) => one.all)) {
      for (const key of requirement.anyOf.flatMap((authority) => authority.keys)) {
        keys.set(key.keyId, key.pem)
      }
    }
  }
  return [...keys].map(([keyId, pem]) => ({ keyId, pem }))
}

/** The signers that satisfied both rules, each key once per rule, or why they do not. */
export function judgeImage(
  rules: RulePair,
  image: ResolvedImage,
  evidence: readonly Evidence[],
): readonly AcceptedSigner[] | Refusal {
  const { floor, tenant } = rules
  if (tenant === null) {
    return new Refusal(
      'IMAGE_NOT_PERMITTED',
      'The tenant has no image rule, so no image is permitted. Set one that names the keys its images are signed with.',
      { image: nameOf(image), digest: image.digest },
    )
  }
  const ofTenant = judgeRule(tenant, image, evidence)
  if (floor === null || ofTenant instanceof Refusal) return ofTenant
  const ofFloor = judgeRule(floor, image, evidence)
  return ofFloor instanceof Refusal ? ofFloor : [...ofFloor, ...ofTenant]
}

function judgeRule(
  rule: ImageRule,
  image: ResolvedImage,
  evidence: readonly Evidence[],
): readonly AcceptedSigner[] | Refusal {
  const fitting = rulesFor(rule, image)
  if (fitting.length === 0) {
    return new Refusal(
      'IMAGE_NOT_PERMITTED',
      `No image rule matches ${nameOf(image)}, and what no rule matches is denied.`,
      { image: nameOf(image), digest: image.digest, rule_document: rule.digest },
    )
  }
  const accepted: AcceptedSigner[] = []
  for (const one of fitting) {
    for (const requirement of one.all) {
      const signers = signersFor(one.name, requirement, image, evidence)
      if (signers.length < requirement.threshold) {
        return refuseSigners(one, requirement, image, evidence)
      }
      for (const signer of signers) {
        if (!accepted.some((same) => same.keyId === signer.keyId && same.rule === signer.rule)) {
          accepted.push(signer)
        }
      }
    }
  }
  return accepted
}

/** One entry per different key, so that a threshold counts keys and not signatures. */
function signersFor(
  rule: string,
  requirement: Requirement,
  image: ResolvedImage,
  evidence: readonly Evidence[],
): readonly AcceptedSigner[] {
  const signers = new Map<string, AcceptedSigner>()
  for (const authority of requirement.anyOf) {
    for (const key of authority.keys) {
      const found = evidence.find(
        (one) => one.keyId === key.keyId && isVerified(one) && isFor(one, authority, image),
      )
      if (found === undefined) continue
      const { form, artifact } = found
      signers.set(key.keyId, { keyId: key.keyId, key: key.id, rule, form, artifact })
    }
  }
  return [...signers.values()]
}

/** Both members must say so: a report that contradicts itself is not evidence. */
const isVerified = (evidence: Evidence): boolean =>
  evidence.verified && evidence.reason === 'verified'

const isFor = (evidence: Evidence, authority: CosignKeyAuthority, image: ResolvedImage): boolean =>
  evidence.digest === image.digest &&
  (authority.identityMatch === 'anyRepository' ||
    evidence.identity === null ||
    evidence.identity === nameOf(image))

function refuseSigners(
  rule: Rule,
  requirement: Requirement,
  image: ResolvedImage,
  evidence: readonly Evidence[],
): Refusal {
  const keys = requirement.anyOf.flatMap((authority) => authority.keys)
  const facts = {
    image: nameOf(image),
    digest: image.digest,
    rule: rule.name,
    threshold: requirement.threshold,
    accepted_keys: keys.map((key) => key.keyId),
    seen: evidence.map((one) => `${one.form} ${one.keyId ?? 'unknown key'} ${one.reason}`),
  }
  if (evidence.length === 0) {
    return new Refusal(
      'IMAGE_UNSIGNED',
      `The image ${nameOf(image)} carries no signature. Sign it with a key that rule ${rule.name} names.`,
      facts,
    )
  }
  const foreign = evidence.filter(
    (one) => one.verified && keys.some((key) => key.keyId === one.keyId),
  )
  // An accepted key did sign, but each time something else: a copied signature, or a changed image.
  if (foreign.length > 0 && signersFor(rule.name, requirement, image, evidence).length === 0) {
    return new Refusal(
      'IMAGE_SIGNATURE_MISMATCH',
      `An accepted key signed, but not this image: the signature names another digest or repository. Sign ${nameOf(image)} at this digest.`,
      {
        ...facts,
        signed_digests: foreign.map((one) => one.digest ?? 'unreadable'),
        signed_repositories: foreign.map((one) => one.identity ?? 'none'),
      },
    )
  }
  return new Refusal(
    'IMAGE_SIGNER_NOT_ACCEPTED',
    `Rule ${rule.name} asks for ${requirement.threshold} of its keys to have signed, and they have not. Sign the image with them, or have the rule changed.`,
    facts,
  )
}

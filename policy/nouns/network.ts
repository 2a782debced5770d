/** A pod's place on its tenant's network: addresses are given out by the host, never by an image or a caller. */

/** A card as the spec has it (docs/formats.md section 2). */
export interface PodNetwork {
  /** `address/prefix` in canonical form; IPv4, then IPv6. */
  readonly addresses: readonly string[]
  /** Six pairs of lower-case hexadecimal digits; locally administered. */
  readonly mac: string
  /** Bytes of the largest packet. */
  readonly mtu: number
}

/**
 * A log of one record each, with a key that the hosts of these tests trust: tickets for records that
 * no honest agent would write. What is refused of them is refused for what they say.
 */
import { leafHash } from '../../audit/merkle.ts'
import {
  checkpointText,
  generateSeed,
  type Signer,
  signerFromSeed,
  signNote,
} from '../../audit/note.ts'
import { formatReceipt } from '../../audit/receipt.ts'

export class Forge {
  readonly #signer: Signer

  constructor(origin: string) {
    this.#signer = signerFromSeed(origin, generateSeed())
  }

  get vkey(): string {
    return this.#signer.vkey
  }

  /** The receipt of a record, whatever it says. */
  ticket(record: Uint8Array): string {
    const checkpoint = { origin: this.#signer.name, size: 1, root: leafHash(record) }
    return formatReceipt({
      index: 0,
      hashes: [],
      checkpoint: signNote(checkpointText(checkpoint), this.#signer),
    })
  }
}

/**
 * The signer's memory: the private key, and the right edge of the tree it signed last.
 *
 * It signs only what extends what it signed, and computes the root itself from leaf hashes. So who
 * holds the agent can append to the log and can rewrite nothing, and one size has one root for
 * ever. The new edge is on disk before the signature leaves: a signer that forgot could be made
 * to sign a second history.
 */
import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import {
  type CanonicalObject,
  canonicalJson,
  isCanonicalObject,
  parseCanonical,
} from '../../policy/canonical.ts'
import { Frontier } from '../merkle.ts'
import {
  checkpointText,
  decodeBase64,
  generateSeed,
  type Signer,
  signerFromSeed,
  signNote,
} from '../note.ts'
import type { SignerAnswer, SignerRequest } from './protocol.ts'

const VERSION = 'casemate.signer/1'

/** The signer's files are not as it left them; it does not start. */
export class SignerStateError extends Error {
  override readonly name = 'SignerStateError'
  readonly code = 'SIGNER_STATE'
}

/** Nothing of it is in place: what was there before still is, and the signer can go on. */
export class StateNotWritten extends Error {
  constructor(file: string, cause: unknown) {
    super(`${file} could not be written: ${String(cause)}`, { cause })
    this.name = 'StateNotWritten'
  }
}

/**
 * Synchronous on purpose: nothing else may happen between the check and the rename.
 * @throws StateNotWritten before the rename, as on a full disk; after it, what the system says
 */
function writeDurableSync(file: string, bytes: string | Uint8Array, mode: number): void {
  const directory = openSync(path.dirname(file), constants.O_RDONLY | constants.O_DIRECTORY)
  const temporary = `${file}.new`
  try {
    try {
      rmSync(temporary, { force: true })
      const handle = openSync(temporary, 'wx', mode)
      try {
        writeFileSync(handle, bytes)
        fsyncSync(handle)
      } finally {
        closeSync(handle)
      }
    } catch (error) {
      throw new StateNotWritten(file, error)
    }
    renameSync(temporary, file)
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

function readState(file: string, origin: string): Frontier {
  const value = parseCanonical(readFileSync(file, 'utf8'))
  const members: CanonicalObject = isCanonicalObject(value) ? value : {}
  const { frontier, root, size, v } = members
  if (v !== VERSION || members['origin'] !== origin || typeof size !== 'number') {
    throw new SignerStateError(`${file} is not the state of a signer of ${origin}`)
  }
  const hashes = Array.isArray(frontier)
    ? frontier.map((hash) => (typeof hash === 'string' ? decodeBase64(hash) : null))
    : [null]
  const known = hashes.filter((hash) => hash?.length === 32).filter((hash) => hash !== null)
  if (known.length !== hashes.length) throw new SignerStateError(`${file} has a bad frontier`)
  const read = new Frontier(size, known)
  if (read.root().toString('base64') !== root) {
    throw new SignerStateError(`${file} has a root that is not its frontier's`)
  }
  return read
}

export class Keeper {
  readonly #file: string
  readonly #signer: Signer
  #signed: Frontier

  private constructor(file: string, signer: Signer, signed: Frontier) {
    this.#file = file
    this.#signer = signer
    this.#signed = signed
  }

  /**
   * Opens the key directory (mode 0700, of the signer's own user); makes key and state on the very
   * first start. A key without its state, or a state with records but no key, is refused: that is
   * how a roll-back by deleting files looks.
   * @throws SignerStateError
   */
  static open(directory: string, origin: string): Keeper {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    chmodSync(directory, 0o700)
    const keyFile = path.join(directory, 'key')
    const stateFile = path.join(directory, 'signed')
    if (!existsSync(stateFile)) {
      if (existsSync(keyFile)) {
        throw new SignerStateError(`${stateFile} is missing: what was signed last is not known`)
      }
      writeDurableSync(stateFile, stateText(origin, new Frontier()), 0o600)
    }
    const signed = readState(stateFile, origin)
    if (!existsSync(keyFile)) {
      if (signed.size > 0) throw new SignerStateError(`${keyFile} is missing`)
      writeDurableSync(keyFile, `${generateSeed().toString('base64')}\n`, 0o600)
    }
    const seed = decodeBase64(readFileSync(keyFile, 'utf8').trimEnd())
    if (seed?.length !== 32) throw new SignerStateError(`${keyFile} holds no key`)
    return new Keeper(stateFile, signerFromSeed(origin, seed), signed)
  }

  get vkey(): string {
    return this.#signer.vkey
  }

  /** Writes the public key where everybody may read it. */
  publish(file: string): void {
    writeDurableSync(file, `${this.vkey}\n`, 0o644)
  }

  answer(request: SignerRequest): SignerAnswer {
    if (request.op === 'state') return this.#answerWith(null)
    if (request.old_size !== this.#signed.size) {
      return {
        ok: false,
        code: 'SIGNER_REFUSED',
        message: `signed up to ${this.#signed.size}; a tree that goes on from ${request.old_size} is another history`,
      }
    }
    const next = this.#signed.clone()
    for (const leaf of request.leaves) next.append(leaf)
    if (next.size !== this.#signed.size) {
      writeDurableSync(this.#file, stateText(this.#signer.name, next), 0o600)
      this.#signed = next
    }
    const text = checkpointText({
      origin: this.#signer.name,
      size: this.#signed.size,
      root: this.#signed.root(),
    })
    return this.#answerWith(signNote(text, this.#signer))
  }

  #answerWith(note: string | null): SignerAnswer {
    const { size } = this.#signed
    return { ok: true, vkey: this.vkey, size, root: this.#signed.root(), note }
  }
}

const stateText = (origin: string, signed: Frontier): string =>
  canonicalJson({
    v: VERSION,
    origin,
    size: signed.size,
    root: signed.root().toString('base64'),
    frontier: signed.hashes.map((hash) => hash.toString('base64')),
  })

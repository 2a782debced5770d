/** The keys that leave a session, as docker writes them: `ctrl-p,ctrl-q`, letters, one after the other. */
import { InvalidArgumentError } from 'commander'

export const DETACH_KEYS = 'ctrl-p,ctrl-q'

function byteOf(key: string): number {
  if (/^[\x20-\x7e]$/u.test(key)) return key.charCodeAt(0)
  const control = /^ctrl-([a-z@[\\\]^_])$/u.exec(key)?.[1]
  if (control !== undefined) return control.toUpperCase().charCodeAt(0) & 0x1f
  throw new InvalidArgumentError(
    'Keys are characters, or ctrl- and one of a-z @ [ \\ ] ^ _, with commas.',
  )
}

/** Finds the keys in what is typed, and holds them back until it is known that they are not meant. */
export class DetachKeys {
  readonly #keys: Buffer
  #held: number[] = []

  /** @throws InvalidArgumentError */
  constructor(text: string) {
    this.#keys = Buffer.from(text.split(',').map(byteOf))
  }

  /** What to pass on; null when all keys came, one after the other. */
  take(typed: Buffer): Buffer | null {
    const passed: number[] = []
    for (const byte of typed) {
      this.#held.push(byte)
      while (!this.#held.every((one, at) => one === this.#keys[at])) {
        passed.push(...this.#held.splice(0, 1))
      }
      if (this.#held.length === this.#keys.length) return null
    }
    return Buffer.from(passed)
  }
}

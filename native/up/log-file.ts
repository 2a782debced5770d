/**
 * What one process says, in a file of bounded size. The file is root's and the words are not: a
 * process that was taken over must not fill the disk with them, and a disk that is full must not end
 * `casemate up`, with which every pod would end.
 */
import { closeSync, fstatSync, openSync, renameSync, writeSync } from 'node:fs'

/** Then it becomes `<file>.1`, in place of the one before. */
export const LOG_BYTES_MAX: number = 32 << 20
const MODE = 0o640

export class LogFile {
  readonly #file: string
  readonly #bytesMax: number
  #descriptor: number | null
  #size = 0

  /** Goes on behind what is there. @throws when the file cannot be opened */
  constructor(file: string, bytesMax: number = LOG_BYTES_MAX) {
    this.#file = file
    this.#bytesMax = bytesMax
    this.#descriptor = this.#open()
  }

  #open(): number {
    const descriptor = openSync(this.#file, 'a', MODE)
    this.#size = fstatSync(descriptor).size
    return descriptor
  }

  /** Adds a line, at once: nothing waits in memory. A line that the disk has no room for is lost. */
  write(line: string): void {
    const bytes = Buffer.from(`${line}\n`)
    try {
      if (this.#size > 0 && this.#size + bytes.length > this.#bytesMax) this.#turn()
      this.#descriptor ??= this.#open()
      this.#size += writeSync(this.#descriptor, bytes)
    } catch {
      // Nobody could be told but this very file.
    }
  }

  #turn(): void {
    this.close()
    renameSync(this.#file, `${this.#file}.1`)
  }

  close(): void {
    const descriptor = this.#descriptor
    this.#descriptor = null
    if (descriptor !== null) closeSync(descriptor)
  }
}

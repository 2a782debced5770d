/** Bytes in the order in which they came. However small the pieces are, each byte is copied a few times at most. */
const ROOM_BYTES_MIN = 4096

export class ByteQueue {
  #room: Buffer = Buffer.alloc(0)
  #from = 0
  #to = 0

  get length(): number {
    return this.#to - this.#from
  }

  append(bytes: Buffer): void {
    if (this.#to + bytes.length > this.#room.length) this.#makeRoom(bytes.length)
    this.#to += bytes.copy(this.#room, this.#to)
  }

  #makeRoom(more: number): void {
    const needed = this.length + more
    // Moved within it, or to one twice as large: in either case as much can come again before the next time.
    const isEnough = needed * 2 <= this.#room.length
    const room = isEnough ? this.#room : Buffer.alloc(Math.max(needed * 2, ROOM_BYTES_MIN))
    this.#to = this.#room.copy(room, 0, this.#from, this.#to)
    this.#from = 0
    this.#room = room
  }

  /** The first of them, `most` at most; what it gives is good until the next `append` or `drop`. */
  first(most: number): Buffer {
    return this.#room.subarray(this.#from, Math.min(this.#to, this.#from + most))
  }

  /** Takes so many away. */
  drop(count: number): void {
    this.#from += count
    if (this.#from < this.#to) return
    this.#room = Buffer.alloc(0)
    this.#from = 0
    this.#to = 0
  }
}

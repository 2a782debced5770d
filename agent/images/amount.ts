/** What images take on a disk: bytes, and files, each of which costs an inode and time to look at. */
export interface Amount {
  readonly bytes: number
  readonly files: number
}

export const NOTHING: Amount = { bytes: 0, files: 0 }

export const plus = (a: Amount, b: Amount): Amount => ({
  bytes: a.bytes + b.bytes,
  files: a.files + b.files,
})

/** What is left of `a` without `b`; of neither less than nothing. */
export const without = (a: Amount, b: Amount): Amount => ({
  bytes: Math.max(0, a.bytes - b.bytes),
  files: Math.max(0, a.files - b.files),
})

export const isNothing = ({ bytes, files }: Amount): boolean => bytes === 0 && files === 0

export const totalOf = (amounts: readonly Amount[]): Amount => amounts.reduce(plus, NOTHING)

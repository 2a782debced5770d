/** A group of measurements whose parts have started; starting them is not measured. */
import type { Figure } from './figures.ts'

export interface Opened {
  measure(): Promise<readonly Figure[]>
  close(): Promise<void>
}

/** A group that needs nothing started. */
export const plain =
  (measure: (folder: string) => Promise<readonly Figure[]>) =>
  (folder: string): Promise<Opened> =>
    Promise.resolve({ measure: () => measure(folder), close: () => Promise.resolve() })

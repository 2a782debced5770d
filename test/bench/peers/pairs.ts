/** Two figures of one thing, and how they are shown. */
import { type Figure, figure, type Unit } from '../figures.ts'

/** Samples of one thing, of both programs. */
export interface Both {
  readonly ours: readonly number[]
  readonly theirs: readonly number[]
}

export interface Pair {
  readonly id: string
  readonly ours: Figure
  readonly theirs: Figure
  /** Medians, ours by theirs; two digits behind the point. */
  readonly ratio: number
}

/** @throws RangeError without samples, or with one that is no number */
export function pair(id: string, unit: Unit, both: Both): Pair {
  const [ours, theirs] = [figure(id, unit, both.ours), figure(id, unit, both.theirs)]
  return { id, ours, theirs, ratio: Number((ours.median / theirs.median).toFixed(2)) }
}

const HEAD = ['figure', 'unit', 'n', 'ours', 'min', 'max', 'theirs', 'min', 'max', 'ours/theirs']

/** Rows of a table in Markdown: it is for docs/benchmarks.md as well. */
export function table(pairs: readonly Pair[]): string {
  const rows = pairs.map(({ id, ours, theirs, ratio }) => {
    const of = ({ median, min, max }: Figure): readonly number[] => [median, min, max]
    return [`\`${id}\``, ours.unit, ours.n, ...of(ours), ...of(theirs), ratio.toFixed(2)]
  })
  const all = [HEAD, HEAD.map(() => '---'), ...rows]
  return all.map((row) => `| ${row.join(' | ')} |`).join('\n')
}

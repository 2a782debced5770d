/** What a measurement comes to: a few numbers with their unit, and how they are shown. */

export type Unit = 'ms' | 'us' | 'KiB' | 'MB/s' | 'records/s' | 'VMs/s' | 'pods'

/** One measured thing. docs/benchmarks.md says for each id what was measured. */
export interface Figure {
  readonly id: string
  readonly unit: Unit
  /** Samples. */
  readonly n: number
  readonly median: number
  readonly min: number
  readonly max: number
  /** Null below 100 samples, where it would be the largest one. */
  readonly p99: number | null
}

/** A group that was not measured, and why. */
export interface Skipped {
  readonly group: string
  readonly reason: string
}

const P99_SAMPLES_MIN = 100
const DIGITS = 4
const OURS = '.casemate'

/** The smallest sample that `share` of all are not above (nearest rank). */
export function quantile(sorted: readonly number[], share: number): number {
  const found = sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]
  if (found === undefined) throw new RangeError('a quantile of no samples')
  return found
}

function medianOf(sorted: readonly number[]): number {
  const upper = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : (quantile(sorted, 0.5) + upper) / 2
}

const rounded = (value: number): number => Number(value.toPrecision(DIGITS))

/** @throws RangeError without samples, or with one that is no number */
export function figure(id: string, unit: Unit, samples: readonly number[]): Figure {
  if (samples.length === 0 || samples.some((sample) => !Number.isFinite(sample))) {
    throw new RangeError(`${id} has no samples, or one that is no number`)
  }
  const sorted = samples.toSorted((a, b) => a - b)
  return {
    id,
    unit,
    n: sorted.length,
    median: rounded(medianOf(sorted)),
    min: rounded(sorted[0] ?? Number.NaN),
    max: rounded(sorted.at(-1) ?? Number.NaN),
    p99: sorted.length < P99_SAMPLES_MIN ? null : rounded(quantile(sorted, 0.99)),
  }
}

/** What figures of one thing come to, ours by each other's: `container.start: casemate/runc 1.9`. */
export function ratios(figures: readonly Figure[]): readonly string[] {
  const ours = figures.filter(({ id }) => id.endsWith(OURS))
  return ours.flatMap(({ id, median }) => {
    const thing = id.slice(0, -OURS.length)
    const others = figures.filter((one) => one.id.startsWith(`${thing}.`) && one.id !== id)
    return others.map((other) => {
      const name = other.id.slice(thing.length + 1)
      return `${thing}: casemate/${name} ${(median / other.median).toFixed(2)}`
    })
  })
}

const HEAD = ['figure', 'unit', 'n', 'median', 'p99', 'min', 'max']
const NUMBERS_FROM = 2

/** Plain text in columns; numbers to the right. */
export function table(figures: readonly Figure[]): string {
  const rows = figures.map(({ id, unit, n, median, p99, min, max }) => [
    id,
    unit,
    ...[n, median, p99, min, max].map((value) => (value === null ? '-' : String(value))),
  ])
  const all = [HEAD, ...rows]
  const widths = HEAD.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)))
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0
        return column < NUMBERS_FROM ? cell.padEnd(width) : cell.padStart(width)
      })
      .join('  ')
  return all.map(line).join('\n')
}

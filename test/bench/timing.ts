/** Taking times: monotonic, in floating-point microseconds. */

export const nowUs = (): number => Number(process.hrtime.bigint()) / 1000

export async function elapsedUs(work: () => Promise<unknown>): Promise<number> {
  const began = nowUs()
  await work()
  return nowUs() - began
}

/** Times `count` runs after `warmUp` that do not count. */
export function samplesUs(warmUp: number, count: number, work: () => void): readonly number[] {
  for (let run = 0; run < warmUp; run += 1) work()
  return Array.from({ length: count }, () => {
    const began = nowUs()
    work()
    return nowUs() - began
  })
}

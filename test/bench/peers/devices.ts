/** What a guest measures of its own devices, by its own clock (guest/measure.c). */
import type { Peers } from './measure.ts'
import { type Both, type Pair, pair } from './pairs.ts'

const NS_PER_MS = 1_000_000
const NS_PER_US = 1000
/** Characters of what a guest said last in an error. */
const SAID_LAST = 1000

/** Something took so many nanoseconds for an amount of requests or bytes. */
export interface Took {
  readonly amount: number
  readonly ns: number
}

/** The samples of each thing in what a guest's kernel logged. @throws RangeError when there is none */
export function tookOf(text: string): ReadonlyMap<string, readonly Took[]> {
  const found = new Map<string, Took[]>()
  for (const [, name = '', amount, ns] of text.matchAll(/measured (\S+) (\d+) (\d+)/gu)) {
    const samples = found.get(name) ?? []
    samples.push({ amount: Number(amount), ns: Number(ns) })
    found.set(name, samples)
  }
  if (found.size === 0)
    throw new RangeError(`a guest measured nothing: ${text.replaceAll('\0', '').slice(-SAID_LAST)}`)
  return found
}

const perRequest = (samples: readonly Took[] = []): readonly number[] =>
  samples.map(({ amount, ns }) => ns / amount / NS_PER_MS)
/** 10^6 bytes a second. */
const throughput = (samples: readonly Took[] = []): readonly number[] =>
  samples.map(({ amount, ns }) => (amount * NS_PER_US) / ns)

/** A boot of each. Theirs verifies nothing, so both disks of ours are beside its one. */
export async function measureDevices({ ours, theirs }: Peers): Promise<readonly Pair[]> {
  const [our, their] = [tookOf(await ours.measured()), tookOf(await theirs.measured())]
  const random = (of: string): Both => ({
    ours: perRequest(our.get(`disk.random.${of}`)),
    theirs: perRequest(their.get('disk.random.plain')),
  })
  const sequential = (of: string): Both => ({
    ours: throughput(our.get(`disk.sequential.${of}`)),
    theirs: throughput(their.get('disk.sequential.plain')),
  })
  return [
    pair('disk.random.checked', 'ms', random('checked')),
    pair('disk.random.plain', 'ms', random('plain')),
    pair('disk.sequential.checked', 'MB/s', sequential('checked')),
    pair('disk.sequential.plain', 'MB/s', sequential('plain')),
    pair('net.echo', 'ms', {
      ours: perRequest(our.get('net.echo')),
      theirs: perRequest(their.get('net.echo')),
    }),
    pair('output', 'MB/s', {
      ours: throughput(our.get('output')),
      theirs: throughput(their.get('output')),
    }),
  ]
}

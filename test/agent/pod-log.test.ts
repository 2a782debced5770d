/**
 * Parts of a pod's log over the API, and the command line that follows it while agents come and go.
 * The ring is written as a VMM writes it; the agent only reads.
 */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { casemate } from './command-line.ts'
import { member } from './harness.ts'
import { exitCode, type PodHost, podHost, run } from './pod-host.ts'

const NS = 1_000_000_000n
const ns = (instant: string): bigint => BigInt(Date.parse(instant)) * 1_000_000n

async function text(host: PodHost, pod: string, query = ''): Promise<string> {
  const path = `/v1/tenants/acme/pods/${pod}/logs${query}`
  const reply = await host.agent.tenant(host.token, { path, headers: { accept: 'text/plain' } })
  assert.equal(reply.status, 200, reply.text)
  return reply.text
}

/** The last lines of a text, as tail(1) has them. */
function tailOf(whole: string, lines: number): string {
  const parts = whole.split(/(?<=\n)/u)
  return lines === 0 ? '' : parts.slice(-lines).join('')
}

suite('agent/pod-log', () => {
  test('tail gives the last lines, however they lie in records and starts', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'on-failure:1' })
    await host.launches(1)
    const first = ['one\n', 'two\nthree\nfo', 'ur\n', '\n', 'six\nseven\n']
    for (const part of first) {
      // What is no line of the app counts for nothing.
      await host.write(pod, 'console\n', 3)
      await host.write(pod, part)
    }
    host.end(pod, exitCode(1))
    await host.until('the end', async () =>
      member(await host.inspect(pod), 'state') === 'restarting' ? true : null,
    )
    host.pass(60_000)
    const second = await host.launches(2)
    await host.until('running', async () =>
      member(await host.inspect(pod), 'state') === 'running' ? true : null,
    )
    for (const end of ['', 'eight\n', 'nine and no end']) {
      if (end !== '') await host.write(second.pod, end)
      const whole = await text(host, pod)
      for (let lines = 0; lines <= 11; lines += 1) {
        const got = await text(host, pod, `?tail=${lines}`)
        assert.equal(got, tailOf(whole, lines), `the last ${lines} after ${JSON.stringify(end)}`)
      }
    }
  })

  test('a span of time, in RFC 3339 or ago, and one stream of two', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    await host.launches(1)
    const at = ns('2026-05-01T12:00:00Z')
    await host.write(pod, 'a\n', 1, at)
    await host.write(pod, 'b\n', 2, at + NS / 2n)
    await host.write(pod, 'c\n', 1, at + NS)
    await host.write(pod, 'now\n', 2, BigInt(Date.now()) * 1_000_000n)
    for (const [query, expected] of [
      ['', 'a\nb\nc\nnow\n'],
      ['?from=2026-05-01T12:00:00.5Z', 'b\nc\nnow\n'],
      ['?from=2026-05-01T12:00:00.500000001Z', 'c\nnow\n'],
      ['?until=2026-05-01T14:00:00.5%2B02:00', 'a\nb\n'],
      ['?from=2026-05-01T12:00:00.2Z&until=2026-05-01T12:00:00.9Z', 'b\n'],
      ['?from=1h30m', 'now\n'],
      ['?until=1d', 'a\nb\nc\n'],
      ['?stream=stdout', 'a\nc\n'],
      ['?stream=stderr', 'b\nnow\n'],
      ['?stream=stderr&tail=1', 'now\n'],
      ['?tail=2&until=1d', 'b\nc\n'],
    ] as const)
      assert.equal(await text(host, pod, query), expected, query)
  })

  test('refuses what is no time, no number and no sense', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    for (const query of [
      'from=yesterday',
      'from=2026-05-01',
      'from=2026-13-01T00:00:00Z',
      'from=10',
      'from=m10',
      'until=1m&follow=true',
      'tail=100001',
      'tail=-1',
      'stream=console',
      'lines=3',
    ]) {
      const path = `/v1/tenants/acme/pods/${pod}/logs?${query}`
      const reply = await host.agent.tenant(host.token, { path })
      assert.deepEqual([reply.status, member(reply.json, 'code')], [400, 'BAD_REQUEST'], query)
    }
  })

  test('the command line follows over agents that end, and prints every line once', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    await host.launches(1)
    const printed = casemate(t, host, 'logs', '-f', '--tail', '1', pod)
    await host.write(pod, 'before the tail\nline 0\n')
    const lines = ['line 0\n']
    await host.until('the first line', () => (printed.stdout === 'line 0\n' ? true : null))
    for (let agents = 0; agents < 3; agents += 1) {
      for (let count = 0; count < 50; count += 1) {
        lines.push(`line ${lines.length}\n`)
        await host.write(pod, lines.at(-1) ?? '')
        if (count === 20) await host.agent.end()
        if (count === 40) await host.agent.again()
      }
    }
    await host.until('all lines', () =>
      printed.stdout.length >= lines.join('').length ? true : null,
    )
    host.end(pod, exitCode(0))
    assert.equal(await printed.ended, 0)
    assert.equal(printed.stdout, lines.join(''))
  })

  test('puts a time before each line, and not into one that comes in pieces', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    await host.launches(1)
    const at = ns('2026-05-01T12:00:00Z')
    await host.write(pod, 'one\ntw', 1, at)
    await host.write(pod, 'o\nthree\n', 1, at + NS)
    const printed = casemate(t, host, 'logs', '--timestamps', pod)
    assert.equal(await printed.ended, 0)
    assert.equal(
      printed.stdout,
      [
        '2026-05-01T12:00:00.000000000Z one\n',
        '2026-05-01T12:00:00.000000000Z two\n',
        '2026-05-01T12:00:01.000000000Z three\n',
      ].join(''),
    )
  })

  test('wait prints how several pods ended, one that is started again only at its last end', async (t) => {
    const host = await podHost(t)
    const [first, again] = [await run(host), await run(host, { restart: 'on-failure:1' })]
    await host.launches(2)
    const printed = casemate(t, host, 'wait', first, again)
    host.end(first, exitCode(3))
    host.end(again, exitCode(4))
    await host.until('restarting', async () =>
      member(await host.inspect(again), 'state') === 'restarting' ? true : null,
    )
    host.pass(60_000)
    assert.equal(printed.stdout, '')
    host.end((await host.launches(3)).pod, exitCode(5))
    assert.equal(await printed.ended, 0)
    assert.equal(printed.stdout, '3\n5\n')
  })

  test('prune removes what ended long enough ago, and nothing that may still start', async (t) => {
    const host = await podHost(t)
    const ended = await run(host, { labels: { keep: 'no' } })
    const kept = await run(host)
    const waits = await run(host, { restart: 'always', labels: { keep: 'no' } })
    const runs = await run(host, { labels: { keep: 'no' } })
    await host.launches(4)
    for (const pod of [ended, kept, waits]) host.end(pod, exitCode(0))
    await host.until('their ends', async () => {
      const states = await Promise.all([ended, kept].map((pod) => host.inspect(pod)))
      return states.every((pod) => member(pod, 'state') === 'exited') ? true : null
    })
    const prune = (...words: readonly string[]) => casemate(t, host, 'prune', ...words)
    const early = prune('--older-than', '1h')
    assert.deepEqual([await early.ended, early.stdout], [0, ''])
    const labelled = prune('--older-than', '0s', '-f', 'label=keep=no')
    assert.deepEqual([await labelled.ended, labelled.stdout], [0, `${ended}\n`])
    assert.equal(await prune('--older-than', 'ever').ended, 2)
    const { json } = await host.agent.operator({ path: '/v1/tenants/acme/pods' })
    const left = (member(json, 'pods') as unknown[]).map((pod) => member(pod, 'id'))
    assert.deepEqual(left, [runs, waits, kept])
  })
})

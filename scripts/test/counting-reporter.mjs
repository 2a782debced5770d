/** A node:test reporter that writes one JSON line: counts of tests (not suites), and what failed. */

const whereOf = ({ file, line }) => (file === undefined ? '' : ` (${file}:${line ?? 0})`)

export default async function* counting(source) {
  const counts = { passed: 0, failed: 0, skipped: 0, failures: [] }
  for await (const { type, data } of source) {
    if ((type !== 'test:pass' && type !== 'test:fail') || data.details?.type === 'suite') continue
    if (data.skip !== undefined || data.todo !== undefined) counts.skipped += 1
    else if (type === 'test:pass') counts.passed += 1
    else {
      counts.failed += 1
      counts.failures.push(`${data.name}${whereOf(data)}`)
    }
  }
  yield `${JSON.stringify(counts)}\n`
}

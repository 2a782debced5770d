/** What the demo prints. With --json nothing goes to standard output but the one object at the end. */
export function printer(json) {
  const write = (line) => (json ? process.stderr : process.stdout).write(`${line}\n`)
  const timings = {}
  return {
    timings,
    line: write,
    /** Does one step and says what it was and what it took. */
    step: async (name, what, work) => {
      const began = performance.now()
      const result = await work()
      timings[name] = Math.round(performance.now() - began)
      write(`  ${what.padEnd(62)} ${String(timings[name]).padStart(7)} ms`)
      return result
    },
  }
}

/** Says what set-up is doing: one moving line on a terminal, plain lines otherwise. All of it on stderr. */
const terminal = process.stderr.isTTY === true
const seconds = (since) => `${((Date.now() - since) / 1000).toFixed(1)} s`
const COLUMNS_DEFAULT = 100

/** Counts steps and times them. A step that found nothing to do is silent unless on a terminal. */
export class Progress {
  #started = Date.now()
  #step = { name: '', since: 0, announced: false }
  #done = 0
  #worked = 0
  constructor(total) {
    this.total = total
  }

  begin(name) {
    this.#step = { name, since: Date.now(), announced: false }
    this.#show('')
  }

  /** To be called when a step starts something that takes long. */
  working(what) {
    this.#worked += this.#step.announced ? 0 : 1
    this.#step.announced = true
    if (!terminal) this.#plain(`${this.#step.name}: ${what}`)
    this.#show(what)
  }

  line(text) {
    if (this.#step.announced) this.#show(text)
  }

  end() {
    this.#clear()
    if (this.#step.announced)
      this.#plain(`${this.#step.name}: done in ${seconds(this.#step.since)}`)
    this.#done += 1
  }

  note(text) {
    this.#clear()
    process.stderr.write(`set-up: ${text}\n`)
  }

  finish() {
    const what = this.#worked === 0 ? 'nothing to do' : 'ready'
    this.note(`${what} (${seconds(this.#started)})`)
  }

  fail(error) {
    this.#clear()
    process.stderr.write(`set-up: failed at: ${this.#step.name}\n  ${error.message}\n`)
    if (error.advice !== undefined) process.stderr.write(`  what to do: ${error.advice}\n`)
  }

  #plain(text) {
    process.stderr.write(`set-up [${this.#done + 1}/${this.total}] ${text}\n`)
  }

  #clear() {
    if (terminal) process.stderr.write('\r\x1b[K')
  }

  #show(text) {
    if (!terminal) return
    const head = `set-up [${this.#done + 1}/${this.total}] ${this.#step.name} ${seconds(this.#step.since)} `
    const room = (process.stderr.columns || COLUMNS_DEFAULT) - head.length - 1
    const clean = text.replace(/[^\x20-\x7e]/gu, ' ').slice(0, Math.max(0, room))
    process.stderr.write(`\r\x1b[K${head}${clean}`)
  }
}

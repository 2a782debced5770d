/** Tasks that wait for each other when they have the same name. */
export class Turns {
  readonly #last = new Map<string, Promise<void>>()

  /** Runs the task after all that were given under this name before, however those end. */
  run<T>(name: string, task: () => Promise<T>): Promise<T> {
    const done = (this.#last.get(name) ?? Promise.resolve()).then(task)
    const over = (): void => {
      if (this.#last.get(name) === last) this.#last.delete(name)
    }
    const last = done.then(over, over)
    this.#last.set(name, last)
    return done
  }
}

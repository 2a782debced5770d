/**
 * Branding: a value of a branded type was made by its parse function and holds its limits.
 * Everything that crosses a boundary is parsed once; behind it, only branded types travel.
 */
declare const brand: unique symbol

/** `Base`, known to be a `Name`. Only the predicate beside the type may narrow to it. */
export type Branded<Base, Name extends string> = Base & { readonly [brand]: Name }

/**
 * A value outside the limits of its noun. The message says what is allowed; it never repeats the
 * value, which may be long, secret or hostile to a terminal.
 */
export class BadNoun extends TypeError {
  override readonly name = 'BadNoun'
  readonly code = 'BAD_NOUN'
  /** Which noun, in words: `tenant id`, `memory_mib`. */
  readonly noun: string
  constructor(noun: string, rule: string) {
    super(`${noun} ${rule}`)
    this.noun = noun
  }
}

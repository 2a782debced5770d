/** What the tests about the source itself read out of it: imports of TypeScript, code of Rust. */

const importing =
  /\b(?:import|export)\s*(?:type\s*)?(?:[\w$*{][^'"();=]*\sfrom\s*)?\(?\s*['"]([^'"\n]+)['"]/gu

/** All module names a text imports: static, type-only, re-exported, for side effects, dynamic. */
export const specifiersOf = (text: string): readonly string[] =>
  [...text.matchAll(importing)].map((found) => found[1] ?? '')

/** A Rust text without comments, string and character literals (raw strings included). */
export function codeOfRust(text: string): string {
  const ignored =
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|b?r(#+)"[\s\S]*?"\1|b?r"[^"]*"|b?"(?:[^"\\]|\\[\s\S])*"|b?'(?:[^'\\\n]|\\[^\n]{1,10})'/gu
  return text.replaceAll(ignored, ' ')
}

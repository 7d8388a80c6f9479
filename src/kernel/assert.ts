/** Thrown when something that must hold does not: a defect in this program, never bad input. */
export class AssertionFailed extends Error {
  override readonly name = 'AssertionFailed';
}

/**
 * States what must hold and why. Stays on in production: continuing with a broken assumption
 * would turn a defect into lost or mixed-up data.
 */
export function assert(condition: boolean, why: string): asserts condition {
  if (!condition) throw new AssertionFailed(why);
}

/** Marks a branch that the types prove impossible; reached only if data lied about its type. */
export function unreachable(value: never, why: string): never {
  throw new AssertionFailed(`${why}: ${JSON.stringify(value)}`);
}

/**
 * `cellwright/testing`: random commands against a machine, and the laws that must hold. For tests only; it needs the
 * package `fast-check`, which is not among the dependencies of a fleet.
 */
export { assertLaws, LawBroken, type CheckedRuns, type LawOptions } from './laws.ts';
export { generalLaws, type GeneralLaw, type Law, type Laws, type Situation } from './run.ts';

/**
 * `import 'cellwright/traps'`, before a machine is imported: handlers then fail where a cell would fail them, when they
 * use what differs between two runs (clock, random numbers, locale, …). Meant for tests; a cell does it by itself.
 * It wraps functions of the whole process, which is why importing 'cellwright' does not.
 */
import { installTraps } from './machine/serve/traps/traps.ts';

installTraps();

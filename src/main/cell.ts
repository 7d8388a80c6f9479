import { fileURLToPath } from 'node:url';
import { CellBootSchema } from '../protocol/boot.ts';
import { startCell } from '../cell/serve/cell.ts';
import { runProcess } from '../process/life.ts';

/** Sources run as they are while developing, and as JavaScript once built. */
const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
const guardianFile = fileURLToPath(new URL(`./guardian.${ending}`, import.meta.url));

runProcess({ boot: CellBootSchema, start: (boot, life) => startCell(boot, life, { guardianFile }) });

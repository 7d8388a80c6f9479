import { runGuardian } from '../cell/serve/guard.ts';

runGuardian();

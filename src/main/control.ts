import { ControlBootSchema } from '../protocol/boot.ts';
import { runProcess, type Life, type Stoppable } from '../process/life.ts';
import { openSigner } from '../trust/signature.ts';
import { readSecretFile } from '../trust/token.ts';
import { openRuntime } from '../machine/serve/runtime.ts';
import type { ControlBoot } from '../protocol/boot.ts';
import { fleetMachine } from '../control/decide/fleet.ts';
import { fleetInstance } from '../control/decide/tables.ts';
import { Plane } from '../control/serve/plane.ts';
import { startControlServer } from '../control/serve/server.ts';

/** The control plane's process. */
runProcess({ boot: ControlBootSchema, start });

async function start(boot: ControlBoot, life: Life): Promise<Stoppable> {
  const secret = await readSecretFile(boot.secretFile);
  const signer = openSigner(boot.privateKeyFile);
  const runtime = await openRuntime({
    folder: boot.folder,
    owner: `${boot.fleet}/control`,
    mustExist: boot.logExpected,
    machineFor: (instance) => (instance === fleetInstance ? fleetMachine : undefined),
    nowMs: Date.now,
    onStopped: (reason) => life.fail(reason, 'backoff'),
  });
  try {
    const plane = await Plane.open({ runtime, fleet: boot.fleet, nowMs: Date.now });
    const server = await startControlServer({ plane, signer, secret, listen: boot.listen, log: life.log });
    const { version } = plane.model;
    life.log.info({ url: server.url, version, recovered: runtime.recovered }, 'the control plane is listening');
    life.report({ type: 'listening', url: server.url });
    life.report({ type: 'settled', state: 'serving' });
    return {
      async stop() {
        await server.stop();
        plane.close();
        await runtime.close();
      },
    };
  } catch (thrown) {
    await runtime.close();
    throw thrown;
  }
}

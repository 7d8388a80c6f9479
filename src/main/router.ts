import type { pushStatus as PushStatus } from '../follow/status.ts';
import { runProcess } from '../process/life.ts';
import { RouterBootSchema } from '../protocol/boot.ts';
import { listenAdmin } from '../router/serve/admin.ts';
import { listenData } from '../router/serve/data.ts';
import { RouterMetrics } from '../router/serve/metrics.ts';
import { Routing } from '../router/serve/routing.ts';
import { openVerifier } from '../trust/signature.ts';
import { readTokenFile } from '../trust/token.ts';

/** The router: serves with what is on disk first, and follows the control plane when it can be reached. */
runProcess({
  boot: RouterBootSchema,
  async start(boot, life) {
    let status: ReturnType<typeof PushStatus> = { changed: () => undefined, stop: () => undefined };
    const routing = await Routing.load({
      fleet: boot.fleet,
      folder: boot.folder,
      verifier: openVerifier(boot.publicKeyFile),
      onProblem: (problem) => life.log.warn({ code: problem.code }, problem.message),
      onChanged: () => status.changed(),
    });
    const metrics = new RouterMetrics({
      version: () => routing.table.position?.version ?? 0,
      tenants: () => routing.table.tenantCount,
      live: () => routing.live,
    });
    const admin = await listenAdmin({ ...boot.adminListen, routing, metrics });
    const data = await listenData({ ...boot.listen, partitionKey: boot.partitionKey, routing, metrics });
    life.report({ type: 'listening', url: data.url, adminUrl: admin.url });
    life.report({ type: 'settled', state: 'serving' });
    const { position } = routing.table;
    life.log.info({ url: data.url, adminUrl: admin.url, position, tenants: routing.table.tenantCount }, 'serving');

    const token = await readTokenFile(boot.tokenFile);
    await routing.follow({ controlUrl: boot.controlUrl, token });
    const { pushStatus } = await import('../follow/status.ts');
    status = pushStatus({
      controlUrl: boot.controlUrl,
      token,
      read: () => ({
        kind: 'router',
        name: boot.name,
        pid: process.pid,
        applied: routing.table.position ?? { generation: 0, version: 0 },
        tableHash: routing.table.hash,
      }),
    });
    return {
      async stop() {
        status.stop();
        await data.stop();
        await admin.stop();
        await routing.stop();
      },
    };
  },
});

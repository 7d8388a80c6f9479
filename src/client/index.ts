export {
  connect,
  clientBounds,
  type Client,
  type ClientOptions,
  type CommandResult,
  type TenantClient,
} from './tenant.ts';
export { Fault, type Reaction } from '../kernel/fault.ts';

// The public API of `nbd-sdk/web`: exports only. Nothing in its graph imports a module of Node.

export { NbdConnection } from './connection.js';
export { NbdServer } from './server.js';

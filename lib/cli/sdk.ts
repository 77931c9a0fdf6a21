// The part of the public API that every command needs. index.js also loads streams, copying and hashing, which commands
// such as `nbd info` do not need; without them, `nbd info` starts about 10 ms faster.

export { NbdConnection } from '../client/node.js';
export { type NbdConnectionOptions } from '../client/options/options.js';
export { NbdError } from '../errors.js';
export * from '../protocol/client-constants.js';

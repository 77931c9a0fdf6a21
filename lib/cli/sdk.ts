// The part of the public face that every command needs. index.js has it too, but loads streams, copying and hashing with
// it, which `nbd info` can do without: it starts some 10 ms sooner.

export { NbdConnection } from '../client/connection.js';
export { type NbdConnectionOptions } from '../client/options/options.js';
export { NbdConnectionError, NbdError } from '../errors.js';
export * from '../protocol/client-constants.js';

// Everything that is fuzzed.

import { type Example, type Family } from './family.js';
import { connectionFamily } from './connections.js';
import { handshakeFamily } from './handshakes.js';
import { replyFamily } from './replies.js';
import { requestFamily } from './requests.js';
import { serveFamily } from './serves.js';

/** A family, and its share of the requested inputs: whole connections take longer than decoders. */
export interface Part {
  readonly family: Family;
  readonly share: number;
}

/** Every family gets its own examples back, whatever they are. */
const part = <E extends Example>(family: Family<E>, share: number): Part => ({
  family: family,
  share,
});

export const FAMILIES: readonly Part[] = [
  part(replyFamily('simple'), 1),
  part(replyFamily('structured'), 1),
  part(replyFamily('extended'), 1),
  part(handshakeFamily, 1),
  part(requestFamily, 1),
  part(serveFamily, 1),
  part(connectionFamily, 0.1),
];

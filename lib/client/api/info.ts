// What the handshake told, as the getters of the public face say it.

import { NbdError, NbdStateError, NbdStrictError } from '../../errors.js';
import * as s from '../../protocol/client-constants.js';
import { type ExportInfo, payloadLimit, type ProtocolName } from '../../protocol/export-info.js';
import type { Lifecycle } from '../lifecycle.js';
import { checkState, WHEN_INFORMED } from '../state.js';

const lacking = (method: string, what: string): NbdStateError =>
  new NbdStateError(`${method}: ${what}`, { code: 'EINVAL', syscall: method });

export class Info {
  readonly #lifecycle: Lifecycle;

  constructor(lifecycle: Lifecycle) {
    this.#lifecycle = lifecycle;
  }

  /** The open export's facts; throws where the server has not told them. */
  export(method: string): ExportInfo {
    const { phase, error, session } = this.#lifecycle;
    checkState(method, phase, WHEN_INFORMED, error);
    const info = session?.info;
    if (info == null) throw lacking(method, 'the server has not returned export flags: call optGo or optInfo first');
    return info;
  }

  flag(method: string, flag: number): boolean {
    return (this.export(method).flags & flag) !== 0;
  }

  negotiated(method: string, what: 'structuredReplies' | 'extendedHeaders' | 'tls'): boolean {
    checkState(method, this.#lifecycle.phase, WHEN_INFORMED, this.#lifecycle.error);
    return this.#lifecycle.session?.negotiated[what] ?? false;
  }

  protocol(method: string): ProtocolName {
    checkState(method, this.#lifecycle.phase, WHEN_INFORMED, this.#lifecycle.error);
    const protocol = this.#lifecycle.session?.protocol;
    if (protocol == null) throw lacking(method, 'the server has not greeted yet');
    return protocol;
  }

  size(method: string): bigint {
    return BigInt(this.export(method).size);
  }

  blockSize(method: string, which: number): number {
    const { blockSizes } = this.export(method);
    switch (which) {
      case s.SIZE_MINIMUM:
        return blockSizes?.minimum ?? 0;
      case s.SIZE_PREFERRED:
        return blockSizes?.preferred ?? 0;
      case s.SIZE_MAXIMUM:
        return blockSizes?.maximum ?? 0;
      case s.SIZE_PAYLOAD:
        return payloadLimit(blockSizes);
      default:
        throw new NbdStrictError(`${method}: must be one of SIZE_MINIMUM … SIZE_PAYLOAD, not ${String(which)}`, {
          code: 'EINVAL',
          syscall: method,
        });
    }
  }

  text(method: string, which: 'canonicalName' | 'description'): string {
    const text = this.export(method)[which];
    if (text === null) {
      throw new NbdError(`${method}: the server did not say (see setFullInfo)`, { code: 'ENOTSUP', syscall: method });
    }
    return text;
  }

  metaContext(method: string, name: string): boolean {
    const { phase, error, session, settings } = this.#lifecycle;
    checkState(method, phase, WHEN_INFORMED, error);
    const contexts = session?.negotiated.contexts;
    if (contexts == null) {
      if (settings.metaContexts.length === 0) return false;
      throw lacking(
        method,
        'the server has not been asked for the metadata contexts that were added: call optGo, optInfo or ' +
          'optSetMetaContext first, with requestMetaContext on',
      );
    }
    return [...contexts.values()].includes(name);
  }
}

// What a pool knows about its export, and its events: the base of NbdPool.

import { EventEmitter } from 'eventemitter3';
import type { ProtocolName } from '../protocol/export-info.js';
import type { Roster } from './connections/roster.js';
import type { NbdPoolEvents } from './events.js';

/** Set by {@link NbdPoolFacts} itself, so that the roster of a pool is private. */
let setRoster: (facts: NbdPoolFacts, roster: Roster) => void;

/** The facts of an {@link NbdPool}. */
export abstract class NbdPoolFacts extends EventEmitter<NbdPoolEvents> {
  #roster!: Roster;

  static {
    setRoster = (facts, roster) => {
      facts.#roster = roster;
    };
  }

  // ── Facts about the export ────────────────────────────────────────────────────────────────────────────────────
  // Those of the most recent connection. Available at any time, also while no connection is open and after the end.

  /** The targets, as messages show them. */
  get targets(): readonly string[] {
    return this.#roster.targets;
  }

  /** The URI of the export. Throws NbdStrictError `EINVAL` for a stream or a program, which has none that lasts. */
  getUri(): string {
    return this.#roster.uri;
  }

  /** The export name that was requested. */
  getExportName(): string {
    return this.#roster.facts.get('getExportName');
  }

  /** Size of the export in bytes. */
  getSize(): bigint {
    return this.#roster.facts.get('getSize');
  }

  /** A block-size constraint in bytes, 0 where the server advertised none: `SIZE_*`. */
  getBlockSize(sizeType: number): number {
    return this.#roster.facts.blockSize(sizeType);
  }

  /** `oldstyle`, `newstyle` or `newstyle-fixed`. */
  getProtocol(): ProtocolName {
    return this.#roster.facts.get('getProtocol');
  }

  /** Whether replies are structured. */
  getStructuredRepliesNegotiated(): boolean {
    return this.#roster.facts.get('getStructuredRepliesNegotiated');
  }

  /** Whether headers are extended. */
  getExtendedHeadersNegotiated(): boolean {
    return this.#roster.facts.get('getExtendedHeadersNegotiated');
  }

  /** Whether the connections are encrypted. */
  getTlsNegotiated(): boolean {
    return this.#roster.facts.get('getTlsNegotiated');
  }

  /** The server's own name for the export; needs `fullInfo`. */
  getCanonicalExportName(): string {
    return this.#roster.facts.get('getCanonicalExportName');
  }

  /** The server's description of the export; needs `fullInfo`. */
  getExportDescription(): string {
    return this.#roster.facts.get('getExportDescription');
  }

  /** Whether writes are refused. */
  isReadOnly(): boolean {
    return this.#roster.facts.get('isReadOnly');
  }

  /** Whether the medium rotates. */
  isRotational(): boolean {
    return this.#roster.facts.get('isRotational');
  }

  /** Whether `flush` is supported. */
  canFlush(): boolean {
    return this.#roster.facts.get('canFlush');
  }

  /** Whether `CMD_FLAG_FUA` is supported. */
  canFua(): boolean {
    return this.#roster.facts.get('canFua');
  }

  /** Whether `trim` is supported. */
  canTrim(): boolean {
    return this.#roster.facts.get('canTrim');
  }

  /** Whether `zero` is supported. */
  canZero(): boolean {
    return this.#roster.facts.get('canZero');
  }

  /** Whether `CMD_FLAG_FAST_ZERO` is supported. */
  canFastZero(): boolean {
    return this.#roster.facts.get('canFastZero');
  }

  /** Whether `CMD_FLAG_DF` is supported. */
  canDf(): boolean {
    return this.#roster.facts.get('canDf');
  }

  /** Whether several connections see the same data; without it the pool has one connection. */
  canMultiConn(): boolean {
    return this.#roster.facts.get('canMultiConn');
  }

  /** Whether `cache` is supported. */
  canCache(): boolean {
    return this.#roster.facts.get('canCache');
  }

  /** Whether block status takes a filter. */
  canBlockStatusPayload(): boolean {
    return this.#roster.facts.get('canBlockStatusPayload');
  }

  /** Whether the server agreed to a metadata context. */
  canMetaContext(name: string): boolean {
    return this.#roster.facts.canMetaContext(name);
  }
}

/** To be called once, when the pool is made. */
export const takeFactsFrom = (facts: NbdPoolFacts, roster: Roster): void => setRoster(facts, roster);

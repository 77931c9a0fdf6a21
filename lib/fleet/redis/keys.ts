// The names of everything in Redis. All of a fleet is in one slot of a cluster (the braces), and goes with one prefix.

import { aString, type OptionCheck, refuse, shown } from '../../util/option-checks.js';

/** The queue of BullMQ. */
export const QUEUE = 'ranges';
export const DEFAULT_FLEET = 'fleet';

/** The name of a fleet, which is a part of keys. */
export const aFleetName: OptionCheck<string> = (where, value) => {
  if (/^[\w.-]{1,64}$/.test(aString(where, value))) return value as string;
  throw refuse(where, `must be 1 to 64 letters, digits, dots, dashes and underscores, not ${shown(value)}`);
};

/** The prefix of BullMQ's keys, without its colon. */
export const prefixOf = (fleet: string): string => `{nbd:${fleet}}`;

/** The keys of a fleet beside BullMQ's. */
export class Keys {
  /** What scripts put before the names. */
  readonly root: string;

  constructor(fleet: string) {
    this.root = `${prefixOf(fleet)}:`;
  }

  /** Of the fleet: what it is, and since when. */
  get info(): string {
    return `${this.root}info`;
  }

  /** Identities of exports, in the order in which they were planned. */
  get exports(): string {
    return `${this.root}exports`;
  }

  get totals(): string {
    return `${this.root}totals`;
  }

  get servers(): string {
    return `${this.root}servers`;
  }

  /** Ranges that are being worked on. */
  get running(): string {
    return `${this.root}running`;
  }

  get workers(): string {
    return `${this.root}workers`;
  }

  export(id: string): string {
    return `${this.root}export:${id}`;
  }

  plan(id: string): string {
    return `${this.root}plan:${id}`;
  }

  failed(id: string): string {
    return `${this.root}failed:${id}`;
  }

  digests(id: string): string {
    return `${this.root}digests:${id}`;
  }

  server(name: string): string {
    return `${this.root}server:${name}`;
  }

  slots(name: string): string {
    return `${this.root}slots:${name}`;
  }

  checkpoint(job: string): string {
    return `${this.root}checkpoint:${job}`;
  }
}

/** A phase of an export: its work, and the verification of what was copied. */
export type Phase = 'work' | 'verify';

/** The id of a job: BullMQ does not take colons. */
export const jobId = (id: string, phase: Phase, index: number): string => `${id}-${phase}-${index}`;

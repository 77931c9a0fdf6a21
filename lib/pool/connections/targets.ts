// What a pool connects to: one target, or several that are tried in turn.

import { Duplex } from 'node:stream';
import { makeSettings } from '../../client/options/options.js';
import { isPlace, namedTarget, type NbdTarget } from '../../client/connect/targets.js';
import { uriTarget } from '../../client/connect/uri-target.js';
import { printableText } from '../../protocol/names.js';
import { parseUri } from '../../protocol/uri.js';
import { refuse } from '../../util/option-checks.js';
import type { PoolSettings } from '../options.js';

const METHOD = 'NbdPool.connect';

/** A target, checked, and what may be done with it. */
export interface PoolTarget {
  readonly target: NbdTarget;
  /** For messages. */
  readonly description: string;
  /** A program is another server each time that it is started: its connections would not see the same data. */
  readonly isShared: boolean;
}

/** Every target, checked as a connect would. Throws NbdStrictError, and has opened nothing then. */
export function checkTargets(targets: unknown, settings: PoolSettings): PoolTarget[] {
  const list: readonly unknown[] = Array.isArray(targets) ? targets : [targets];
  if (list.length === 0) throw refuse(METHOD, 'the list of targets is empty');
  return list.map((target) => checkTarget(target, list.length, settings));
}

function checkTarget(target: unknown, among: number, settings: PoolSettings): PoolTarget {
  const { connection } = settings;
  if (typeof target === 'string' || target instanceof URL) {
    const { description } = uriTarget(METHOD, parseUri(String(target), METHOD), makeSettings(connection));
    return { target, description, isShared: true };
  }
  if (isStream(target)) {
    if (among > 1 || settings.reconnect !== null || settings.connections > 1) {
      throw refuse(
        METHOD,
        'a stream cannot be opened a second time: give it as the only target, with connections: 1 and reconnect: false',
      );
    }
    return { target, description: 'a given stream', isShared: false };
  }
  const { description } = namedTarget(METHOD, target, makeSettings(connection));
  return { target: target as NbdTarget, description, isShared: isPlace(target) };
}

function isStream(target: unknown): target is Duplex {
  if (target instanceof Duplex) return true;
  return typeof target === 'object' && target !== null && 'pipe' in target && 'write' in target;
}

/** An error's message as part of another one's. */
export const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : printableText(String(error));

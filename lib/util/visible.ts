// Makes untrusted text (a server's messages and names, the parts of a URI) safe to display: characters that move the
// cursor, break the line, change the text direction or are invisible are escaped.

import { Buffer } from './buffer.js';

const FORMAT = '\\u007f-\\u009f\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb';
const LONE = '[\\ud800-\\udbff](?![\\udc00-\\udfff])|(?<![\\ud800-\\udbff])[\\udc00-\\udfff]';
const UNSEEN = new RegExp(`[\\u0000-\\u001f${FORMAT}]|${LONE}`);
const ALL_UNSEEN = new RegExp(UNSEEN, 'g');
const UNSEEN_IN_LINES = new RegExp(`[\\u0000-\\u0009\\u000b-\\u001f${FORMAT}]|${LONE}`, 'g');
/** The same, but keeps the colours of util.inspect. */
const UNSEEN_IN_COLOUR = new RegExp(`(?!\\u001b\\[\\d+m)[\\u0000-\\u0009\\u000b-\\u001f${FORMAT}]|${LONE}`, 'g');

export const escapeByte = (byte: number): string => `\\x${byte.toString(16).padStart(2, '0')}`;
const escapeBytes = (char: string): string => [...Buffer.from(char)].map(escapeByte).join('');
const escapeUnit = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** For one line: line breaks are escaped too. A character is escaped as the bytes of its UTF-8, `\xNN` each. */
export const visible = (text: string): string => (UNSEEN.test(text) ? text.replace(ALL_UNSEEN, escapeBytes) : text);

/** For text of several lines, such as a stack: line breaks are kept. */
export const visibleLines = (text: string): string => text.replace(UNSEEN_IN_LINES, escapeBytes);

/** For JSON or a JavaScript string literal: escapes as `\uNNNN`, which does not change the value. */
export const visibleJson = (json: string): string =>
  UNSEEN.test(json) ? json.replace(UNSEEN_IN_JSON, escapeUnit) : json;
/** Without line breaks: between the values of a JSON text they are layout. */
const UNSEEN_IN_JSON = new RegExp(`[${FORMAT}]|${LONE}`, 'g');

/** The text in double quotes, as in JSON. */
export const quoted = (text: string): string => visibleJson(JSON.stringify(text));

/** For output of util.inspect. */
export const visibleInspection = (text: string, hasColours: boolean): string =>
  text.replace(hasColours ? UNSEEN_IN_COLOUR : UNSEEN_IN_LINES, escapeBytes);

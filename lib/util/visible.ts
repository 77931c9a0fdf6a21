// Text that may come from a stranger (a server's messages and names, the parts of a URI), made fit for a person's eyes:
// what moves a cursor, begins a line, turns the direction of what follows, or is not there to be seen is escaped.

const FORMAT = '\\u007f-\\u009f\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb';
const LONE = '[\\ud800-\\udbff](?![\\udc00-\\udfff])|(?<![\\ud800-\\udbff])[\\udc00-\\udfff]';
const UNSEEN = new RegExp(`[\\u0000-\\u001f${FORMAT}]|${LONE}`);
const ALL_UNSEEN = new RegExp(UNSEEN, 'g');
const UNSEEN_IN_LINES = new RegExp(`[\\u0000-\\u0009\\u000b-\\u001f${FORMAT}]|${LONE}`, 'g');
/** The same but for the colours of util.inspect. */
const UNSEEN_IN_COLOUR = new RegExp(`(?!\\u001b\\[\\d+m)[\\u0000-\\u0009\\u000b-\\u001f${FORMAT}]|${LONE}`, 'g');

export const escapeByte = (byte: number): string => `\\x${byte.toString(16).padStart(2, '0')}`;
const escapeBytes = (char: string): string => [...Buffer.from(char)].map(escapeByte).join('');
const escapeUnit = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** One line: line breaks are escaped too. What is escaped becomes the bytes of its UTF-8, `\xNN` each. */
export const visible = (text: string): string => (UNSEEN.test(text) ? text.replace(ALL_UNSEEN, escapeBytes) : text);

/** The same for text of several lines, such as a stack. */
export const visibleLines = (text: string): string => text.replace(UNSEEN_IN_LINES, escapeBytes);

/** A JSON text, or a string of JavaScript, with the same written as `\uNNNN`: it says what it said before. */
export const visibleJson = (json: string): string =>
  UNSEEN.test(json) ? json.replace(UNSEEN_IN_JSON, escapeUnit) : json;
/** Line breaks between the values of a JSON text are its layout. */
const UNSEEN_IN_JSON = new RegExp(`[${FORMAT}]|${LONE}`, 'g');

/** In double quotes, as JSON has it. */
export const quoted = (text: string): string => visibleJson(JSON.stringify(text));

/** What util.inspect has made of something. */
export const visibleInspection = (text: string, hasColours: boolean): string =>
  text.replace(hasColours ? UNSEEN_IN_COLOUR : UNSEEN_IN_LINES, escapeBytes);

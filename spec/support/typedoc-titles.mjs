// A plugin of typedoc: documents are called by their first heading, not by the name of their file. Two of ours are named
// README.md.

import { Converter } from 'typedoc';

/** @param {import('typedoc').Application} app */
export function load(app) {
  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (_context, document) => {
    const text = document.content.map((part) => part.text).join('');
    const heading = /^# (.+)$/m.exec(text)?.[1];
    if (heading !== undefined) document.name = heading;
  });
}

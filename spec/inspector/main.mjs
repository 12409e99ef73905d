// The program of the page, and of the worker that reads files for it.

import { start } from './page.mjs';
import { report } from './report.mjs';

if (typeof document === 'undefined') {
  self.onmessage = ({ data: { what, bytes, given } }) => report(what, bytes, given, (part) => self.postMessage(part));
} else {
  start(document.currentScript.textContent);
}

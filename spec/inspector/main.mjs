// The program of the page, and of the worker that reads files for it.

import { start } from './page.mjs';
import { report } from './report.mjs';

if (typeof document === 'undefined') {
  self.onmessage = ({ data }) => report(data, (part) => self.postMessage(part));
} else {
  start(document.currentScript.textContent);
}

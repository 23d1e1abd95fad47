// JD mini-programs, and every other runtime of that kind without WebAssembly.

import { load } from '../core/js.js';
import { miniProgram } from './mini.js';

module.exports = miniProgram(load);

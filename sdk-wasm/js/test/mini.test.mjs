import { suite } from './suite.mjs';

suite('mini');

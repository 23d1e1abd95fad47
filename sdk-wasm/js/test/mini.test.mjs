import { delivery } from './delivery.mjs';
import { recording } from './recording.mjs';

recording('mini');
delivery('mini');

import { decisions } from './decisions.mjs';
import { delivery } from './delivery.mjs';
import { faults } from './faults.mjs';
import { manners } from './manners.mjs';
import { recording } from './recording.mjs';

recording('mini');
delivery('mini');
manners('mini');
faults('mini');
decisions('mini');

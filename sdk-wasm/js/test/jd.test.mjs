import { decisions } from './decisions.mjs';
import { delivery } from './delivery.mjs';
import { faults } from './faults.mjs';
import { manners } from './manners.mjs';
import { recording } from './recording.mjs';

recording('jd');
delivery('jd');
manners('jd');
faults('jd');
decisions('jd');

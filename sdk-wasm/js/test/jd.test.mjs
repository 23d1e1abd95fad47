import { delivery } from './delivery.mjs';
import { recording } from './recording.mjs';

recording('jd');
delivery('jd');

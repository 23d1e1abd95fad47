// The import comes first: it is what makes App and Page record.
const subway = require('subway-miniprogram');
const config = require('./config');

subway.init({
  server: config.server,
  key: config.key,
  appVersion: '1.0.0',
  consentRequired: true,
});

App({
  onLaunch(options) {
    subway.registerApp({ entry_scene: options.scene });
    if (subway.getConsent() === 'unknown') this.askForConsent();
  },

  askForConsent() {
    jd.showModal({
      title: 'Help us improve',
      content: 'May we record which pages are used?',
      // The SDK remembers the answer.
      success: (answer) => subway.setConsent(answer.confirm),
    });
  },

  onShow() {},
  onHide() {},
});

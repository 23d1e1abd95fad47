const subway = require('subway-miniprogram');

Page({
  data: { id: '', bought: false },

  onLoad(query) {
    this.setData({ id: query.id });
    subway.trackTimerStart('item_decided');
  },

  buy() {
    subway.track('order_placed', { item: this.data.id, amount: 1 }, { theme: 'order' });
    subway.trackTimerEnd('item_decided', { item: this.data.id });
    this.setData({ bought: true });
  },
});

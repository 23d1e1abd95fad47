const ITEMS = [
  { id: 'tea', name: 'Tea', price: 20 },
  { id: 'cup', name: 'Cup', price: 35 },
];

Page({
  data: { items: ITEMS },

  openItem(event) {
    jd.navigateTo({ url: '/pages/item/item?id=' + event.currentTarget.dataset.id });
  },

  onShareAppMessage() {
    return { title: 'Tea and cups', path: '/pages/index/index' };
  },
});

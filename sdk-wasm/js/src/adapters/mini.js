// Mini-programs whose API looks like `jd`/`wx`: synchronous storage, request with callbacks, App and Page.

import { base, timezone } from './common.js';

/** JD and WeChat take 1 MB under one key, others less; a text counts as up to 2 bytes a character. */
const KEY_BYTES = 190 * 1024;
/** Of the 10 MB that all keys of a mini-program share. */
const QUEUE_BYTES = 2 * 1024 * 1024;

/** The adapter for `api`, the host's global object. */
export function miniAdapter(platform, api) {
  return Object.assign(base(), {
    platform,
    keyBytes: KEY_BYTES,
    queueBytes: QUEUE_BYTES,
    // Only where a request is known to send an ArrayBuffer as it is.
    binary: platform === 'weapp' || platform === 'qq',
    storage: {
      get: (key) => {
        const value = api.getStorageSync(key);
        // Hosts give '' or null or undefined for what is not there.
        return value ? String(value) : undefined;
      },
      set: (key, value) => api.setStorageSync(key, value),
      remove: (key) => api.removeStorageSync(key),
      keys: () => api.getStorageInfoSync().keys,
    },
    request(request, done) {
      let data = request.body;
      if (typeof data !== 'string') data = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
      api.request({
        url: request.url,
        method: 'POST',
        header: request.headers,
        data,
        timeout: request.timeout,
        dataType: 'text',
        responseType: 'text',
        success(answer) {
          const header = answer.header || answer.headers || {};
          const find = (name) => header[Object.keys(header).filter((key) => key.toLowerCase() === name)[0]];
          // Some hosts parse JSON whatever they are told.
          done(answer.statusCode || answer.status, find, typeof answer.data === 'string' ? answer.data : JSON.stringify(answer.data));
        },
        fail: () => done(0),
      });
    },
    system() {
      const info = api.getSystemInfoSync();
      const os = /^(\S+)\s+(.+)$/.exec(info.system || '') || [undefined, info.system || info.platform];
      return {
        hostApp: info.appName || info.hostName || (info.host && (info.host.env || info.host.appId)),
        hostVersion: info.version,
        os: os[1],
        osVersion: os[2],
        brand: info.brand,
        model: info.model,
        screen: info.screenWidth && info.screenWidth + 'x' + info.screenHeight,
        language: info.language,
        timezone: timezone(),
      };
    },
    network(tell) {
      if (api.getNetworkType) api.getNetworkType({ success: (answer) => tell(answer.networkType) });
      if (api.onNetworkStatusChange) api.onNetworkStatusChange((answer) => tell(answer.networkType));
    },
  });
}

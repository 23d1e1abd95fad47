// TextEncoder and TextDecoder for runtimes without them, as far as the glue uses them. The build puts these in the
// place of the globals; what is not well-formed becomes U+FFFD, as there.

const CHUNK = 4096;

export class TextEncoder {
  encode(text) {
    const bytes = new Uint8Array(text.length * 3);
    let end = 0;
    for (let at = 0; at < text.length; at++) {
      let code = text.charCodeAt(at);
      if (code < 0x80) {
        bytes[end++] = code;
        continue;
      }
      if (code >= 0xd800 && code < 0xe000) {
        const low = text.charCodeAt(at + 1);
        if (code < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
          code = 0x10000 + ((code - 0xd800) << 10) + low - 0xdc00;
          at++;
        } else code = 0xfffd;
      }
      if (code < 0x800) bytes[end++] = 0xc0 | (code >> 6);
      else {
        if (code < 0x10000) bytes[end++] = 0xe0 | (code >> 12);
        else {
          bytes[end++] = 0xf0 | (code >> 18);
          bytes[end++] = 0x80 | ((code >> 12) & 63);
        }
        bytes[end++] = 0x80 | ((code >> 6) & 63);
      }
      bytes[end++] = 0x80 | (code & 63);
    }
    return bytes.subarray(0, end);
  }
}

export class TextDecoder {
  // Rust only hands out well-formed UTF-8.
  decode(bytes) {
    let text = '';
    let units = [];
    for (let at = 0; bytes && at < bytes.length; ) {
      let code = bytes[at++];
      if (code >= 0xf0) code = ((code & 7) << 18) | ((bytes[at++] & 63) << 12) | ((bytes[at++] & 63) << 6) | (bytes[at++] & 63);
      else if (code >= 0xe0) code = ((code & 15) << 12) | ((bytes[at++] & 63) << 6) | (bytes[at++] & 63);
      else if (code >= 0xc0) code = ((code & 31) << 6) | (bytes[at++] & 63);
      if (code >= 0x10000) {
        code -= 0x10000;
        units.push(0xd800 + (code >> 10), 0xdc00 + (code & 1023));
      } else units.push(code);
      if (units.length >= CHUNK) {
        text += String.fromCharCode.apply(null, units);
        units = [];
      }
    }
    return text + String.fromCharCode.apply(null, units);
  }
}

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
    const length = bytes ? bytes.length : 0;
    let text = '';
    let at = 0;
    while (at < length) {
      // A run of ASCII at once: most of what is handed out is nothing else.
      const start = at;
      while (at < length && bytes[at] < 0x80 && at - start < CHUNK) at++;
      if (at > start) text += String.fromCharCode.apply(null, bytes.subarray(start, at));
      while (at < length && bytes[at] >= 0x80) {
        let code = bytes[at++];
        if (code >= 0xf0) code = ((code & 7) << 18) | ((bytes[at++] & 63) << 12) | ((bytes[at++] & 63) << 6) | (bytes[at++] & 63);
        else if (code >= 0xe0) code = ((code & 15) << 12) | ((bytes[at++] & 63) << 6) | (bytes[at++] & 63);
        else code = ((code & 31) << 6) | (bytes[at++] & 63);
        text += code < 0x10000 ? String.fromCharCode(code) : String.fromCharCode(0xd7c0 + (code >> 10), 0xdc00 + (code & 1023));
      }
    }
    return text;
  }
}

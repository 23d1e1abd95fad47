// The collector that `cargo xtask demo` starts; a phone needs an https address that JD's console allows.
module.exports = { server: 'http://127.0.0.1:8080', key: 'demo' };

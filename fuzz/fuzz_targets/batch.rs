#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| subway_fuzz_targets::batch::body(data));

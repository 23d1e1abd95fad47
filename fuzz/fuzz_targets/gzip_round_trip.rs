#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| subway_fuzz_targets::json::gzip_round_trip(data));

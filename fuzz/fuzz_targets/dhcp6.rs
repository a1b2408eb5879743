#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xget::fuzzing::dhcp6(bytes));

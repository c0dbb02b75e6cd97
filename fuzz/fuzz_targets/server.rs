//! See `ssh_fuzz::run_server`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ssh_fuzz::run_server(data));

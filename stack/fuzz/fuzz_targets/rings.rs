//! See [`barewire_fuzz::rings`].

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| barewire_fuzz::rings(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    barewire_fuzz::run_files(barewire_fuzz::rings)
}

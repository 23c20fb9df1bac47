//! See [`barewire_fuzz::stack`].

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| barewire_fuzz::stack::run(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    barewire_fuzz::run_files(barewire_fuzz::stack::run)
}

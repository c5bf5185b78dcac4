//! Gives a decoder bytes that nobody meant for it, by bolero.
//!
//! A target is a test: a name, samples of what is read in good times, and a function that must not panic, whatever it is
//! given. In `cargo test` it gets the samples; `./dev fuzz` asks for damaged ones, and
//! `./dev fuzz --guided` builds the same tests so that libFuzzer leads them, by what of the code an input reaches.

#[cfg(not(fuzzing))]
mod damage;

use std::panic::RefUnwindSafe;

/// Gives samples, and what becomes of them when they are damaged, to a function that reads them.
///
/// `KILN_FUZZ_INPUT` names a file that it gets instead, as libFuzzer leaves them; `KILN_FUZZ_ROUNDS` says how often each
/// sample is damaged.
///
/// # Panics
///
/// When the function does, with the bytes that it was given.
#[cfg(not(fuzzing))]
pub fn check(name: &str, samples: &[&[u8]], test: impl Fn(&[u8]) + RefUnwindSafe) {
    if let Some(path) = std::env::var_os("KILN_FUZZ_INPUT") {
        let bytes = std::fs::read(&path);
        test(&bytes.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display())));
        return;
    }
    for sample in samples {
        test(sample);
    }
    let rounds = std::env::var("KILN_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    // Without it the same in every run.
    let Some(rounds) = rounds.map(|rounds: usize| rounds.saturating_mul(samples.len())) else {
        return;
    };
    bolero::check!(name = name)
        .with_type::<damage::Damage>()
        .with_iterations(rounds)
        .for_each(|damage| test(&damage.done_to(samples)));
}

/// The same under libFuzzer, which never returns. `KILN_FUZZ_CORPUS` names the directory in which it keeps what reaches
/// new code; the samples are put there first.
///
/// # Panics
///
/// When that directory cannot be written.
#[cfg(fuzzing)]
pub fn check(name: &str, samples: &[&[u8]], test: impl Fn(&[u8]) + RefUnwindSafe) {
    let corpus = std::env::var_os("KILN_FUZZ_CORPUS").map(std::path::PathBuf::from);
    for (number, sample) in samples.iter().enumerate() {
        if let Some(corpus) = &corpus {
            let written = std::fs::write(corpus.join(format!("sample-{number}")), sample);
            written.unwrap_or_else(|error| panic!("cannot write a sample: {error}"));
        }
    }
    bolero::check!(name = name).for_each(|bytes: &[u8]| test(bytes));
}

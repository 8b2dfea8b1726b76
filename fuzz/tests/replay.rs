//! The kept inputs, and random changes of them.

use std::{fs, path::Path};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// Changed inputs of each target.
const CHANGED: usize = 1_000;
/// The changes are the same each time.
const SEED: u64 = 1;

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// A few bytes become others, go, come twice, or come from another input.
fn change(random: &mut StdRng, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=input.len());
        let end = random.random_range(at..=input.len().min(at + 16));
        match random.random_range(0..4) {
            0 => input[at..end].fill_with(|| random.random()),
            1 => drop(input.drain(at..end)),
            2 => {
                let twice = input[at..end].to_vec();
                input.splice(at..at, twice);
            }
            _ => {
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len().min(from + 32));
                input.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
}

#[test]
fn kept_inputs_and_changes_of_them_do_no_harm() {
    for (name, target) in fuzz::TARGETS {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "no inputs of {name}");
        inputs.iter().for_each(|input| target(input));
        let mut random = StdRng::seed_from_u64(SEED);
        for _ in 0..CHANGED {
            let mut input = inputs[random.random_range(0..inputs.len())].clone();
            let other = &inputs[random.random_range(0..inputs.len())];
            change(&mut random, &mut input, other);
            target(&input);
        }
    }
}

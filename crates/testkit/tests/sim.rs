//! Lives of clusters on a cloud that fails: seeds that once failed, and what each found. `cargo xtask sim` runs more.

/// Seeds, and what failed in them before it was mended.
const SEEDS: [(u64, &str); 5] = [
    (3, "a control plane's server that vanished was never noticed"),
    (6, "a worker's server that vanished was never noticed"),
    (41, "a node stayed whose single control plane machine was being replaced"),
    (213, "a node stayed whose machine went before anybody knew of it"),
    (220, "a node stayed that could not be deleted for two minutes"),
];

#[test]
fn clusters_live_through_what_goes_wrong_and_leave_nothing() {
    let lives = SEEDS.map(|(seed, found)| (seed, found, std::thread::spawn(move || testkit::sim::run(seed))));
    for (seed, found, life) in lives {
        if let Err(why) = life.join().expect("a life that panics is an error") {
            panic!("seed {seed} ({found}): {why}");
        }
    }
}

//! Lives of clusters on a cloud that fails: seeds that once failed, and what each found. `cargo xtask sim` runs more.

/// Seeds, and what failed in them before it was mended. What a seed means follows from how lives are drawn (`sim/chaos.rs`): where that
/// changes, seeds that are kept are lives like any other.
const SEEDS: [(u64, &str); 7] = [
    (31, "a port stayed that the cloud had made late, beside the one in use"),
    (50, "the control plane waits for a load balancer that is busy, while writes are lost"),
    (71, "a topology on a cloud that answers too late"),
    (250, "a service that was asked too often when it was to tell its versions was taken for one that has none"),
    (416, "controllers that began anew did not look for what a call before them had made late: a second floating IP"),
    (585, "the same of a network"),
    (93, "a machine that was settled, not settled, settled, as volumes could not be listed for a while"),
];

#[test]
fn clusters_live_through_what_goes_wrong_and_leave_nothing() {
    let lives = SEEDS.map(|(seed, found)| (seed, found, std::thread::spawn(move || testkit::sim::run_bare(seed))));
    for (seed, found, life) in lives {
        if let Err(why) = life.join().expect("a life that panics is an error") {
            panic!("seed {seed} ({found}): {why}");
        }
    }
}

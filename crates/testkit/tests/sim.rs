//! Lives of clusters on a cloud that fails: seeds that once failed, and what each found. `cargo xtask sim` runs more.

use testkit::sim::{run, run_alone, run_bare};

type Life = fn(u64) -> Result<String, String>;

/// Seeds, and what failed in them before it was mended. What a seed means follows from how lives are drawn (`sim/chaos.rs`, and for
/// what `run_alone` has besides `sim/beside.rs` and `sim/etcd.rs`, for the rest of `run` `sim/neighbour.rs`): where that changes, seeds that are kept are lives like any other.
const SEEDS: [(Life, u64, &str); 13] = [
    (run_bare, 31, "a port stayed that the cloud had made late, beside the one in use"),
    (run_bare, 50, "the control plane waits for a load balancer that is busy, while writes are lost"),
    (run_bare, 71, "a topology on a cloud that answers too late"),
    (
        run_bare,
        250,
        "a service that was asked too often when it was to tell its versions was taken for one that has none",
    ),
    (
        run_bare,
        416,
        "controllers that began anew did not look for what a call before them had made late: a second floating IP",
    ),
    (run_bare, 585, "the same of a network"),
    (run_bare, 93, "a machine that was settled, not settled, settled, as volumes could not be listed for a while"),
    (run_alone, 2, "the security group of a bastion that is switched off stayed"),
    (run_alone, 85, "a server's port was made before its network had a subnet, and never got an address"),
    (run_alone, 259, "the server group of a pool on a Nova from before 2.64"),
    (run_alone, 261, "a bastion's server was made with the port of the one before, which went late"),
    (run, 336, "a port that was made twice for an OpenStackServer stayed"),
    (run, 682, "a bastion's server that was made twice stayed, and took turns with the other; later, lost its port"),
];

#[test]
fn clusters_live_through_what_goes_wrong_and_leave_nothing() {
    let lives = SEEDS.map(|(life, seed, found)| (seed, found, std::thread::spawn(move || life(seed))));
    for (seed, found, life) in lives {
        if let Err(why) = life.join().expect("a life that panics is an error") {
            panic!("seed {seed} ({found}): {why}");
        }
    }
}

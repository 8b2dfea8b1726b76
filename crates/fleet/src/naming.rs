//! Names of objects that controllers make.

use api::{names, topology::template};
use serde_json::json;

/// Longest name of a machine: it becomes the host name (RFC 1123).
pub const MACHINE_NAME_MAX: usize = 63;
const SUFFIX_CHARS: usize = 5;

/// Random suffixes for a plan: made when the world is observed, so that the plan itself stays a pure function.
#[derive(Clone, Debug)]
pub struct Suffixes(u64);

impl Suffixes {
    /// All suffixes follow from the seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The `index`th suffix: five characters.
    pub fn get(&self, index: usize) -> String {
        // SplitMix64: each seed and index gives an independent value.
        names::suffix(self.0.wrapping_add((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)), SUFFIX_CHARS)
    }
}

/// `<base>-<suffix>`, with the base cut so that the whole fits.
pub fn with_suffix(base: &str, suffix: &str, max: usize) -> String {
    let room = max.saturating_sub(suffix.len() + 1);
    let end = base.floor_char_boundary(room.min(base.len()));
    format!("{}-{suffix}", base[..end].trim_end_matches(['-', '.']))
}

/// The name by a user's naming template, a Go template over `.cluster.name`, `.machineSet.name` (or `.kubeadmControlPlane.name`)
/// and `.random`.
pub fn from_template(text: &str, cluster: &str, owner: (&str, &str), random: &str) -> Result<String, String> {
    let data = json!({"cluster": {"name": cluster}, owner.0: {"name": owner.1}, "random": random});
    let mut name = template::render(text, &data).map_err(|error| format!("naming template {text:?} fails: {error}"))?;
    if name.contains("<no value>") {
        return Err(format!("naming template {text:?} names a field that is not known here"));
    }
    if name.len() > MACHINE_NAME_MAX {
        let kept = name.strip_suffix(random).unwrap_or(&name).trim_end_matches('-').to_owned();
        name = with_suffix(&kept, random, MACHINE_NAME_MAX);
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_base_is_cut_and_the_suffix_kept() {
        let name = with_suffix(&"a".repeat(80), "x2z4w", MACHINE_NAME_MAX);
        assert_eq!(name.len(), MACHINE_NAME_MAX);
        assert!(name.ends_with("-x2z4w"));
    }

    #[test]
    fn suffixes_differ_by_index_and_repeat_by_seed() {
        let (a, b) = (Suffixes::seeded(7), Suffixes::seeded(7));
        assert_ne!(a.get(0), a.get(1));
        assert_eq!(a.get(3), b.get(3));
        assert!(a.get(0).bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte)));
    }

    #[test]
    fn a_naming_template_is_filled_in_or_refused() {
        let owner = ("machineSet", "ms");
        assert_eq!(from_template("{{ .cluster.name }}-w-{{.random}}", "c", owner, "abcde").unwrap(), "c-w-abcde");
        let short = from_template("{{ .machineSet.name | trunc 1 }}-{{ .random }}", "c", owner, "abcde");
        assert_eq!(short.unwrap(), "m-abcde");
        assert!(from_template("{{ .other }}", "c", owner, "abcde").unwrap_err().contains(".other"));
    }
}

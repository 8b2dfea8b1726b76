//! Labels and annotations that an object has from what it is made from.
//!
//! Two annotations of the object name them, as Cluster API does it on nodes: a key that is taken out of the template leaves
//! the object, and what others put there stays. Upstream's controllers know it from the managed fields of server-side apply,
//! which merge patches do not keep apart from other writes of the same manager.

use std::collections::BTreeMap;

use api::{meta::TemplateMeta, names};
use kube::core::ObjectMeta;

use crate::owner;

type Entries = BTreeMap<String, String>;

/// Labels that say whose the object is: its makers keep them, whatever becomes of the template's.
const MAKERS: [&str; 10] = [
    names::CLUSTER_LABEL,
    names::CONTROL_PLANE_LABEL,
    names::CONTROL_PLANE_NAME_LABEL,
    names::DEPLOYMENT_LABEL,
    names::SET_LABEL,
    names::POOL_LABEL,
    names::TEMPLATE_HASH_LABEL,
    names::TOPOLOGY_OWNED_LABEL,
    names::TOPOLOGY_DEPLOYMENT_LABEL,
    names::TOPOLOGY_POOL_LABEL,
];
/// The annotations that name the others.
const RECORDS: [&str; 2] = [names::LABELS_FROM_OWNER_ANNOTATION, names::ANNOTATIONS_FROM_OWNER_ANNOTATION];

/// Gives the object what the template says, and takes away what the template said before.
pub fn carry(meta: &mut ObjectMeta, template: Option<&TemplateMeta>) {
    let none = TemplateMeta::default();
    let template = template.unwrap_or(&none);
    let [labels, annotations] = RECORDS.map(|record| earlier(meta, record));
    retain(&mut meta.labels, &labels, &template.labels);
    retain(&mut meta.annotations, &annotations, &template.annotations);
    owner::extend(&mut meta.labels, &template.labels);
    owner::extend(&mut meta.annotations, &template.annotations);
    note(meta, template);
}

/// Notes on an object that is made what it has from the template.
pub fn note(meta: &mut ObjectMeta, template: &TemplateMeta) {
    for (record, entries) in RECORDS.into_iter().zip([&template.labels, &template.annotations]) {
        let keys: Vec<&str> = entries.keys().map(String::as_str).filter(|key| is_noted(key)).collect();
        if !keys.is_empty() {
            owner::annotate(meta, record, keys.join(","));
        } else if let Some(annotations) = &mut meta.annotations {
            annotations.remove(record);
        }
    }
}

fn is_noted(key: &str) -> bool {
    !MAKERS.contains(&key) && !RECORDS.contains(&key)
}

fn earlier(meta: &ObjectMeta, record: &str) -> Vec<String> {
    let keys = owner::annotation_of(meta, record).unwrap_or_default().split(',');
    keys.filter(|key| !key.is_empty() && is_noted(key)).map(str::to_owned).collect()
}

fn retain(have: &mut Option<Entries>, earlier: &[String], now: &Entries) {
    let Some(have) = have else { return };
    for key in earlier.iter().filter(|key| !now.contains_key(*key)) {
        have.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(pairs: &[(&str, &str)]) -> Entries {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_key_that_leaves_the_template_leaves_the_object_and_those_of_others_stay() {
        let mut meta = ObjectMeta {
            labels: Some(entries(&[("theirs", "1"), (names::SET_LABEL, "ms")])),
            annotations: Some(entries(&[("theirs", "1")])),
            ..ObjectMeta::default()
        };
        let before = meta.clone();
        let labels = entries(&[("a", "1"), ("b", "1"), (names::SET_LABEL, "ms")]);
        let mut template = TemplateMeta { labels, annotations: entries(&[("c", "1")]) };
        carry(&mut meta, Some(&template));
        assert_eq!(owner::label_of(&meta, "a"), Some("1"));
        assert_eq!(owner::annotation_of(&meta, names::LABELS_FROM_OWNER_ANNOTATION), Some("a,b"));
        let settled = meta.clone();
        carry(&mut meta, Some(&template));
        assert_eq!(meta, settled);
        template.labels.remove("a");
        carry(&mut meta, Some(&template));
        assert_eq!((owner::label_of(&meta, "a"), owner::label_of(&meta, "b")), (None, Some("1")));
        carry(&mut meta, None);
        assert_eq!(meta, before);
    }

    #[test]
    fn a_template_cannot_take_away_by_a_record_of_its_own_what_others_have_put_there() {
        let mut meta = ObjectMeta { labels: Some(entries(&[("theirs", "1")])), ..ObjectMeta::default() };
        let record = entries(&[(names::LABELS_FROM_OWNER_ANNOTATION, "theirs")]);
        let template = TemplateMeta { labels: Entries::new(), annotations: record };
        for _ in 0..2 {
            carry(&mut meta, Some(&template));
        }
        assert_eq!(owner::label_of(&meta, "theirs"), Some("1"));
    }
}

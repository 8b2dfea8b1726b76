//! Where two answers differ, place by place.

use serde_json::Value;

/// A text in a difference is cut off here.
const TEXT_CHARS_MAX: usize = 400;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub place: String,
    pub judge: String,
    pub ours: String,
}

/// Everything that differs; `None`: the place is not there.
pub fn differences(place: &str, judge: Option<&Value>, ours: Option<&Value>, out: &mut Vec<Difference>) {
    match (judge, ours) {
        (Some(Value::Object(judge)), Some(Value::Object(ours))) => {
            for key in judge.keys().chain(ours.keys().filter(|key| !judge.contains_key(*key))) {
                differences(&format!("{place}.{key}"), judge.get(key), ours.get(key), out);
            }
        }
        (Some(Value::Array(judge)), Some(Value::Array(ours))) => {
            for i in 0..judge.len().max(ours.len()) {
                differences(&format!("{place}[{i}]"), judge.get(i), ours.get(i), out);
            }
        }
        (judge, ours) if judge == ours => {}
        (judge, ours) => {
            let text = |value: Option<&Value>| value.map_or_else(|| "-".to_owned(), |value| short(&value.to_string()));
            out.push(Difference { place: place.to_owned(), judge: text(judge), ours: text(ours) });
        }
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_says_where_it_is() {
        let mut found = Vec::new();
        let (judge, ours) = (json!({"a": [1, 2], "b": 1, "c": {}}), json!({"a": [1], "b": "1", "c": {}, "d": null}));
        differences("", Some(&judge), Some(&ours), &mut found);
        let lines: Vec<_> = found.iter().map(|d| format!("{} {} {}", d.place, d.judge, d.ours)).collect();
        assert_eq!(lines, [".a[1] 2 -", ".b 1 \"1\"", ".d - null"]);
    }
}

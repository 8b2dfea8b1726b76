//! Cases as data: what is asked of both servers. Files are read, matrices expanded, and variables put in.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A repeated text is at most this long: more than any limit of a server.
const REPEATED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Variables of all cases of the file.
    #[serde(default)]
    vars: Map<String, Value>,
    /// Steps with a name that several cases begin with.
    #[serde(default)]
    given: BTreeMap<String, Vec<Step>>,
    #[serde(default)]
    cases: Vec<Written>,
}

/// A case as it is written: perhaps many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    /// The case is made once for each entry: its name, and what the variable `it` (or, for a map, each key) stands for.
    #[serde(default)]
    each: Map<String, Value>,
    /// Named steps that come first.
    #[serde(default)]
    given: Vec<String>,
    #[serde(default)]
    steps: Vec<Step>,
}

/// One request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Method and path with query: `POST /api/v1/namespaces/${ns}/configmaps`.
    #[serde(rename = "do")]
    pub request: String,
    /// Who asks; the administrator if nobody is named.
    #[serde(default, rename = "as")]
    pub user: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Sent as JSON.
    #[serde(default)]
    pub body: Option<Value>,
    /// Sent as it stands.
    #[serde(default)]
    pub raw: Option<String>,
    /// The media type of what is sent, or a short word for a patch's: `merge`, `json`, `strategic`, `apply`.
    #[serde(default, rename = "type")]
    pub media: Option<String>,
    /// The answer is a watch's: so many lines are read, or fewer if it ends.
    #[serde(default)]
    pub lines: Option<usize>,
    /// Of a watch: events in the order of their objects' names, since the order among objects is not defined.
    #[serde(default)]
    pub sorted: bool,
    /// Asked again until the answer has this code.
    #[serde(default)]
    pub until: Option<u16>,
    /// Asked again until the answer has this text.
    #[serde(default)]
    pub until_text: Option<String>,
    /// Takes values (JSON pointers) out of the answer, each server's own.
    #[serde(default)]
    pub capture: BTreeMap<String, String>,
    /// Only these parts of the answer (JSON pointers) are compared.
    #[serde(default)]
    pub only: Vec<String>,
    /// Only the code is compared.
    #[serde(default)]
    pub quiet: bool,
    /// Further answer headers that are compared.
    #[serde(default)]
    pub compare: Vec<String>,
}

/// A case, ready to run.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub vars: Map<String, Value>,
    pub steps: Vec<Step>,
}

impl Case {
    /// Whether the case wants a namespace of its own.
    pub fn wants_namespace(&self) -> bool {
        let mut texts: Vec<String> = self.vars.values().map(Value::to_string).collect();
        for step in &self.steps {
            texts.push(step.request.clone());
            texts.extend(step.raw.clone());
            texts.extend(step.body.as_ref().map(Value::to_string));
        }
        texts.iter().any(|text| text.contains("${ns}"))
    }
}

/// All cases of a folder, in the order of files; names are unique.
pub fn load(folder: &Path) -> Result<Vec<Case>> {
    let mut files = Vec::new();
    find(folder, &mut files)?;
    files.sort();
    let mut cases = Vec::new();
    let mut shared = BTreeMap::new();
    let given = folder.join("given.yaml");
    if given.exists() {
        shared = read(&given)?.given;
    }
    for path in files.iter().filter(|path| **path != given) {
        let topic = path.strip_prefix(folder).unwrap_or(path).with_extension("");
        let file = read(path)?;
        let mut steps = shared.clone();
        steps.extend(file.given);
        for written in file.cases {
            let name = format!("{}/{}", topic.display(), written.name);
            expand(&name, written, &file.vars, &steps, &mut cases)
                .with_context(|| format!("case {name} of {}", path.display()))?;
        }
    }
    let mut names = BTreeSet::new();
    if let Some(case) = cases.iter().find(|case| !names.insert(case.name.as_str())) {
        bail!("two cases are called {}", case.name);
    }
    Ok(cases)
}

fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    // `y` and `no` are texts here.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(&text, options).with_context(|| format!("read {}", path.display()))
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "yaml") {
            files.push(path);
        }
    }
    Ok(())
}

fn expand(
    name: &str,
    written: Written,
    vars: &Map<String, Value>,
    given: &BTreeMap<String, Vec<Step>>,
    cases: &mut Vec<Case>,
) -> Result<()> {
    let mut steps = Vec::new();
    for wanted in &written.given {
        let found = given.get(wanted).with_context(|| format!("no steps are called {wanted}"))?;
        steps.extend(found.iter().cloned());
    }
    steps.extend(written.steps);
    let mut add = |name: String, entry: Option<&Value>| {
        let mut vars = vars.clone();
        match entry {
            Some(Value::Object(map)) => vars.extend(map.clone()),
            Some(value) => drop(vars.insert("it".to_owned(), value.clone())),
            None => {}
        }
        // Both servers get the same names, so that they need not be taken out of the answers.
        let id = id(&name);
        vars.insert("id".to_owned(), id.clone().into());
        vars.insert("ns".to_owned(), format!("n{id}").into());
        vars.insert("group".to_owned(), format!("g{id}.example.com").into());
        cases.push(Case { name, vars, steps: steps.clone() });
    };
    if written.each.is_empty() {
        add(name.to_owned(), None);
    }
    for (label, entry) in &written.each {
        add(format!("{name}/{label}"), Some(entry));
    }
    Ok(())
}

/// Eight letters and digits that a name always gives (FNV-1a).
fn id(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{:08x}", (hash ^ (hash >> 32)) & 0xffff_ffff)
}

/// Puts variables into a text: `${name}`, `${repeat TEXT N}` and `${repeat $name N}`.
pub fn fill(text: &str, vars: &Map<String, Value>) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 2..];
        let end = tail.find('}').context("a variable without its end")?;
        let word = &tail[..end];
        if let Some(args) = word.strip_prefix("repeat ") {
            let (unit, count) = args.rsplit_once(' ').context("repeat wants a text and a number")?;
            let count: usize = count.parse().context("repeat wants a number")?;
            // Of a variable, so that it may have brackets.
            let unit = match unit.strip_prefix('$') {
                Some(name) => vars.get(name).and_then(Value::as_str).with_context(|| format!("no variable {name}"))?,
                None => unit,
            };
            if unit.len().saturating_mul(count) > REPEATED_BYTES_MAX {
                bail!("a text of more than {REPEATED_BYTES_MAX} bytes");
            }
            out.push_str(&unit.repeat(count));
        } else {
            match vars.get(word).with_context(|| format!("there is no variable {word}"))? {
                Value::String(text) => out.push_str(&fill(text, vars)?),
                other => out.push_str(&other.to_string()),
            }
        }
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The same for a whole value; a text that is one variable alone becomes that variable's value.
pub fn fill_value(value: &Value, vars: &Map<String, Value>) -> Result<Value> {
    Ok(match value {
        Value::String(text) => {
            let alone = text.strip_prefix("${").and_then(|t| t.strip_suffix('}')).filter(|t| !t.contains(['{', ' ']));
            match alone.and_then(|name| vars.get(name)) {
                Some(found) if !found.is_string() => fill_value(found, vars)?,
                _ => Value::String(fill(text, vars)?),
            }
        }
        Value::Array(items) => Value::Array(items.iter().map(|v| fill_value(v, vars)).collect::<Result<_>>()?),
        Value::Object(fields) => {
            let filled = fields.iter().map(|(key, v)| Ok((fill(key, vars)?, fill_value(v, vars)?)));
            Value::Object(filled.collect::<Result<_>>()?)
        }
        other => other.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_put_in_and_a_lone_one_keeps_its_type() {
        let vars = json!({"a": "x", "n": 3, "deep": "${a}!"}).as_object().unwrap().clone();
        assert_eq!(fill("${a}-${n}-${deep}-${repeat ab 2}", &vars).unwrap(), "x-3-x!-abab");
        assert_eq!(fill_value(&json!({"k${a}": "${n}", "t": "n${n}"}), &vars).unwrap(), json!({"kx": 3, "t": "n3"}));
        assert!(fill("${unknown}", &vars).is_err());
        assert!(fill(&format!("${{repeat a {}}}", REPEATED_BYTES_MAX + 1), &vars).is_err());
    }

    #[test]
    fn all_cases_can_be_read_and_there_are_enough_of_them() {
        let cases = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")).unwrap();
        assert!(cases.len() >= 400, "{} cases", cases.len());
    }
}

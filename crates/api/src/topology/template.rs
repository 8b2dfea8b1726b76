//! Go templates over JSON: what values of patches and names of objects are made with (`text/template`, and the part of sprig
//! that such templates use). Everything has a limit, and nothing is read but the data.
//!
//! Left out: `define` and `template`, methods, channels and functions as values.

mod functions;
mod parse;

use serde_json::{Map, Value};

use self::parse::{Node, Operand, Pipeline, Term};
use crate::version;

/// A template may be so long.
pub const TEMPLATE_BYTES_MAX: usize = 256 * 1024;
/// What comes out may be so long.
pub const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Nodes that one rendering may go through.
pub const STEPS_MAX: usize = 100_000;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the template cannot be read: {0}")]
    Parse(String),
    #[error("the template cannot be carried out: {0}")]
    Run(String),
    #[error("the template goes beyond a limit: {0}")]
    Limit(String),
}

impl TemplateError {
    /// A field was asked for of something that is not there.
    pub fn is_of_absent(&self) -> bool {
        matches!(self, Self::Run(why) if why.starts_with(ABSENT))
    }
}

/// As `text/template` says it.
const ABSENT: &str = "nil pointer evaluating";

type Result<T, E = TemplateError> = std::result::Result<T, E>;

fn failed<T>(why: impl Into<String>) -> Result<T> {
    Err(TemplateError::Run(why.into()))
}

/// The text that a template makes of the data. A field that is missing is nothing in conditions, and `<no value>` as text.
///
/// # Errors
/// What is wrong with the template, and that a limit was passed.
pub fn render(text: &str, data: &Value) -> Result<String> {
    if text.len() > TEMPLATE_BYTES_MAX {
        return Err(TemplateError::Limit(format!("it has more than {TEMPLATE_BYTES_MAX} bytes")));
    }
    let nodes = parse::parse(text).map_err(TemplateError::Parse)?;
    let mut run = Run { out: String::new(), steps: 0, variables: vec![("$".to_owned(), data.clone())] };
    run.nodes(&nodes, data)?;
    Ok(run.out)
}

/// What is wrong with a template before it is given anything: that it cannot be read, or a function that is not known.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(text: &str) -> Result<()> {
    if text.len() > TEMPLATE_BYTES_MAX {
        return Err(TemplateError::Limit(format!("it has more than {TEMPLATE_BYTES_MAX} bytes")));
    }
    let nodes = parse::parse(text).map_err(TemplateError::Parse)?;
    let mut names = Vec::new();
    parse::functions(&nodes, &mut names);
    match names.into_iter().find(|name| !functions::is_known(name)) {
        Some(name) => Err(TemplateError::Parse(format!("function {name:?} not defined"))),
        None => Ok(()),
    }
}

struct Run {
    out: String,
    steps: usize,
    /// The innermost last.
    variables: Vec<(String, Value)>,
}

impl Run {
    fn step(&mut self) -> Result<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(TemplateError::Limit(format!("more than {STEPS_MAX} steps")));
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.out.push_str(text);
        if self.out.len() > OUTPUT_BYTES_MAX {
            return Err(TemplateError::Limit(format!("more than {OUTPUT_BYTES_MAX} bytes come out")));
        }
        Ok(())
    }

    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<()> {
        for node in nodes {
            self.node(node, dot)?;
        }
        Ok(())
    }

    /// What is declared inside is gone afterwards.
    fn block(&mut self, nodes: &[Node], dot: &Value) -> Result<()> {
        let known = self.variables.len();
        let done = self.nodes(nodes, dot);
        self.variables.truncate(known);
        done
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<()> {
        self.step()?;
        match node {
            Node::Text(text) => self.write(text),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.declares.is_empty() {
                    self.write(&functions::text(&value))?;
                }
                Ok(())
            }
            Node::If { condition, then, otherwise } => {
                let known = self.variables.len();
                let value = self.pipeline(condition, dot)?;
                let done = self.block(if functions::is_true(&value) { then } else { otherwise }, dot);
                self.variables.truncate(known);
                done
            }
            Node::With { value, then, otherwise } => {
                let known = self.variables.len();
                let value = self.pipeline(value, dot)?;
                let done =
                    if functions::is_true(&value) { self.block(then, &value) } else { self.block(otherwise, dot) };
                self.variables.truncate(known);
                done
            }
            Node::Range { names, list, then, otherwise } => self.range(names, list, then, otherwise, dot),
        }
    }

    fn range(
        &mut self,
        names: &[String],
        list: &Pipeline,
        then: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<()> {
        let items: Vec<(Value, Value)> = match self.pipeline(list, dot)? {
            Value::Array(items) => items.into_iter().enumerate().map(|(index, item)| (index.into(), item)).collect(),
            Value::Object(fields) => fields.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            Value::Number(count) => (0..count.as_u64().unwrap_or(0).min(STEPS_MAX as u64))
                .map(|index| (index.into(), index.into()))
                .collect(),
            Value::Null => Vec::new(),
            other => return failed(format!("range can't iterate over {}", functions::text(&other))),
        };
        if items.is_empty() {
            return self.block(otherwise, dot);
        }
        for (key, item) in items {
            self.step()?;
            let known = self.variables.len();
            match names {
                [value] => self.variables.push((value.clone(), item.clone())),
                [first, second] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
                _ => {}
            }
            let done = self.block(then, &item);
            self.variables.truncate(known);
            done?;
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let mut value = None;
        for command in &pipeline.commands {
            self.step()?;
            value = Some(self.command(command, value, dot)?);
        }
        let value = value.unwrap_or(Value::Null);
        for name in &pipeline.declares {
            if pipeline.assigns {
                let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                known.ok_or_else(|| TemplateError::Run(format!("undefined variable {name}")))?.1 = value.clone();
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(&mut self, command: &[Term], piped: Option<Value>, dot: &Value) -> Result<Value> {
        let Some((first, rest)) = command.split_first() else { return failed("an empty command") };
        if let Operand::Function(name) = &first.operand
            && first.fields.is_empty()
        {
            // Those two look at no more than they need.
            if matches!(name.as_str(), "and" | "or") {
                let mut last = Value::Null;
                for term in rest {
                    last = self.term(term, dot)?;
                    if functions::is_true(&last) == (name == "or") {
                        return Ok(last);
                    }
                }
                return Ok(piped.unwrap_or(last));
            }
            let mut arguments = Vec::with_capacity(rest.len() + 1);
            for term in rest {
                arguments.push(self.term(term, dot)?);
            }
            arguments.extend(piped);
            return functions::call(name, arguments);
        }
        if !rest.is_empty() || piped.is_some() {
            return failed("can't give an argument to what is no function");
        }
        self.term(first, dot)
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Result<Value> {
        self.step()?;
        let value = match &term.operand {
            Operand::Dot => dot.clone(),
            Operand::Literal(value) => value.clone(),
            Operand::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                known.ok_or_else(|| TemplateError::Run(format!("undefined variable {name}")))?.1.clone()
            }
            Operand::Function(name) => functions::call(name, Vec::new())?,
            Operand::Pipeline(pipeline) => self.pipeline(pipeline, dot)?,
        };
        let mut value = value;
        for field in &term.fields {
            value = match value {
                Value::Object(mut fields) => fields.remove(field).unwrap_or(Value::Null),
                Value::Null => return failed(format!("{ABSENT} interface {{}}.{field}")),
                other => return failed(format!("can't evaluate field {field} in {}", functions::text(&other))),
            };
        }
        Ok(value)
    }
}

/// A semantic version as sprig's `semver` gives it.
fn version(text: &str) -> Option<Value> {
    let version = version::parse(text)?;
    let mut fields = Map::new();
    fields.insert("Major".into(), version.major.into());
    fields.insert("Minor".into(), version.minor.into());
    fields.insert("Patch".into(), version.patch.into());
    fields.insert("Prerelease".into(), version.pre.as_str().into());
    fields.insert("Metadata".into(), version.build.as_str().into());
    fields.insert("Original".into(), text.into());
    Some(fields.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(text: &str) -> String {
        let data = json!({
            "name": "node", "on": true, "off": false, "empty": "", "list": ["a", "b"], "map": {"k": {"x": 3}}, "count": 2,
            "builtin": {"controlPlane": {"version": "v1.34.2"}},
        });
        render(text, &data).unwrap_or_else(|error| format!("! {error}"))
    }

    #[test]
    fn templates_are_carried_out_as_go_does() {
        for (template, text) in [
            ("plain {{ .name }}", "plain node"),
            ("{{ if .on }}yes{{ else }}no{{ end }}{{ if .absent }}x{{ end }}", "yes"),
            ("{{ if .off }}a{{ else if .on }}b{{ else }}c{{ end }}", "b"),
            ("a  {{- /* nothing */ -}}  b", "ab"),
            ("{{ range $i, $v := .list }}{{ $i }}={{ $v }};{{ end }}", "0=a;1=b;"),
            ("{{ range .absent }}x{{ else }}none{{ end }}", "none"),
            ("{{ with .map.k }}{{ .x }}{{ end }}", "3"),
            ("{{ $v := semver .builtin.controlPlane.version }}{{ printf \"v%d.%d\" $v.Major $v.Minor }}", "v1.34"),
            ("{{ gt (len .list) 1 }} {{ and .on .off }} {{ or .empty \"d\" }} {{ not .on }}", "true false d false"),
            ("{{ .empty | default \"x\" | quote }}", "\"x\""),
            ("{{ trimPrefix \"v\" .builtin.controlPlane.version }} {{ upper .name }}", "1.34.2 NODE"),
            ("{{ semverCompare \">= 1.31.0\" .builtin.controlPlane.version }}", "true"),
            ("{{ semverCompare \"~1.18446744073709551615.0\" \"1.18446744073709551615.0\" }}", "false"),
            ("{{ toJson .map }} {{ index .list 1 }} {{ index .map \"k\" \"x\" }}", r#"{"k":{"x":3}} b 3"#),
            ("{{ eq .count 2 }} {{ ne .name \"x\" }} {{ eq .name \"a\" \"node\" }}", "true true true"),
            ("{{ .absent }}", "<no value>"),
            ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
            ("{{ join \",\" .list }} {{ b64enc \"a\" }} {{ list 1 2 | len }}", "a,b YQ== 2"),
            ("{{ `raw` }}{{ \"a\\tb\" }}", "rawa\tb"),
            ("x:\n{{ \"a\\nb\" | indent 2 }}", "x:\n  a\n  b"),
        ] {
            assert_eq!(made(template), text, "{template}");
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_told() {
        for (template, wanted) in [
            ("{{ .name", "cannot be read"),
            ("{{ if .on }}", "cannot be read"),
            ("{{ nosuch .name }}", "nosuch"),
            ("{{ .absent.deeper }}", "nil pointer"),
            ("{{ .name.deeper }}", "deeper"),
            ("{{ fail \"stop\" }}", "stop"),
            ("{{ end }}", "cannot be read"),
        ] {
            let error = made(template);
            assert!(error.starts_with("! ") && error.contains(wanted), "{template}: {error}");
        }
    }

    #[test]
    fn a_template_is_checked_before_it_is_carried_out() {
        for (template, good) in [
            ("{{ if and .a (eq .b 1) }}{{ .c | quote }}{{ end }}", true),
            ("{{ range .list }}{{ nosuch . }}{{ end }}", false),
            ("{{ if .on }}", false),
            ("{{ (nosuch) }}", false),
            ("{{ fail \"only when it is carried out\" }}", true),
        ] {
            assert_eq!(check(template).is_ok(), good, "{template}");
        }
        assert!(matches!(check(&"a".repeat(TEMPLATE_BYTES_MAX + 1)), Err(TemplateError::Limit(_))));
    }

    #[test]
    fn limits_hold() {
        assert!(matches!(render(&"a".repeat(TEMPLATE_BYTES_MAX + 1), &Value::Null), Err(TemplateError::Limit(_))));
        assert!(render(&"a".repeat(TEMPLATE_BYTES_MAX), &Value::Null).is_ok());
        let data = json!({"n": STEPS_MAX, "text": "x".repeat(100_000)});
        assert!(matches!(render("{{ range .n }}{{ end }}", &data), Err(TemplateError::Limit(_))));
        assert!(matches!(render("{{ range 11 }}{{ $.text }}{{ end }}", &data), Err(TemplateError::Limit(_))));
    }

    #[test]
    fn what_comes_in_never_panics() {
        for text in [
            "{{",
            "}}",
            "{{}}",
            "{{ | }}",
            "{{ ( }}",
            "{{ . | . }}",
            "{{- -}}",
            "{{ $ }}",
            "{{ \"\\",
            "{{ range }}{{ end }}",
        ] {
            let _ = render(text, &json!({}));
        }
    }
}

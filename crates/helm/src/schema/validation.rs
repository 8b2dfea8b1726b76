//! Values against a schema, keyword by keyword, in the order in which the library of Helm does it.

mod collections;
mod numbers;

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};

use self::numbers::equal;
use super::{
    DEEP_MAX, FOUND_BYTES_MAX, STEPS_MAX,
    document::{Document, Target, escaped},
    finding::{Finding, Kind, count, quote, shown},
    formats,
    keywords::{TYPES, type_of},
};
use crate::{
    error::{Error, Result},
    template::on_enough_stack,
};

/// What is wrong with values, as Helm tells it.
pub fn check(document: &Document<'_>, values: &Json) -> Result<Option<String>> {
    let mut run = Run { document, steps: 0, bytes: 0, limit: None };
    let scope = Scope {
        node: document.root,
        value: std::ptr::from_ref(values).addr(),
        depth: 0,
        step: Step::Same,
        parent: None,
    };
    let found = run.apply(&scope, values, Left::default());
    match (run.limit, found) {
        (Some(what), _) => Err(Error::Limit(what)),
        (None, Ok(_)) => Ok(None),
        (None, Err(finding)) => Ok(Some(format!("{}\n", finding.told()))),
    }
}

/// Which properties and items no schema has looked at, where somebody wants to know.
#[derive(Clone, Default)]
struct Left<'v> {
    names: BTreeSet<&'v str>,
    items: BTreeSet<usize>,
}

impl<'v> Left<'v> {
    fn of(value: &'v Json, schema: &Json, wanted: bool, draft: u16) -> Self {
        let mut left = Self::default();
        let has = |keyword: &str| draft >= 2019 && schema.get(keyword).is_some();
        match value {
            Json::Object(_) if schema.get("additionalProperties").is_some() => {}
            Json::Object(map) if wanted || has("unevaluatedProperties") => {
                left.names = map.keys().map(String::as_str).collect();
            }
            Json::Array(items) if wanted || has("unevaluatedItems") => {
                left.items = (collections::first_left(schema, draft)..items.len()).collect();
            }
            _ => {}
        }
        left
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.items.is_empty()
    }

    fn merge(&mut self, other: &Self) {
        self.names.retain(|name| other.names.contains(name));
        self.items.retain(|item| other.items.contains(item));
    }
}

/// The schemas that led here.
struct Scope<'p, 's> {
    node: &'s Json,
    /// Where the value lies in memory.
    value: usize,
    depth: usize,
    /// From the value of the scope before.
    step: Step<'p>,
    parent: Option<&'p Scope<'p, 's>>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Same,
    Name(&'p str),
    Item(usize),
}

impl Scope<'_, '_> {
    /// Where the value lies, as a JSON pointer.
    fn at(&self) -> String {
        let parts = std::iter::successors(Some(self), |scope| scope.parent).filter_map(|scope| match scope.step {
            Step::Same => None,
            Step::Name(name) => Some(format!("/{}", escaped(name))),
            Step::Item(at) => Some(format!("/{at}")),
        });
        let mut parts: Vec<String> = parts.collect();
        parts.reverse();
        parts.concat()
    }
}

struct Run<'d, 's> {
    document: &'d Document<'s>,
    steps: usize,
    /// Of what was found, also where it is not told in the end.
    bytes: usize,
    limit: Option<String>,
}

/// What one schema says of one value.
struct Node<'p, 's, 'v> {
    scope: &'p Scope<'p, 's>,
    keywords: &'s Map<String, Json>,
    draft: u16,
    value: &'v Json,
    left: Left<'v>,
    found: Vec<Finding>,
}

type Outcome<'v> = std::result::Result<Left<'v>, Finding>;

impl<'s> Run<'_, 's> {
    fn finding(&mut self, scope: &Scope<'_, 's>, what: impl Into<String>) -> Finding {
        self.finding_of(scope, what, Vec::new())
    }

    /// Charged with its bytes, and with the indentation that it may get.
    fn finding_of(&mut self, scope: &Scope<'_, 's>, what: impl Into<String>, causes: Vec<Finding>) -> Finding {
        if self.limit.is_some() {
            return Finding::of(String::new(), "", Vec::new());
        }
        let (at, what) = (scope.at(), what.into());
        self.bytes = self.bytes.saturating_add(at.len() + what.len() + 2 * scope.depth);
        if self.bytes > FOUND_BYTES_MAX {
            self.limit = Some(format!("what is wrong with the values takes more than {FOUND_BYTES_MAX} bytes to tell"));
        }
        Finding::of(at, what, causes)
    }

    fn count(&mut self, steps: usize) {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > STEPS_MAX {
            self.limit.get_or_insert_with(|| format!("the check of values takes more than {STEPS_MAX} steps"));
        }
    }

    fn apply<'v>(&mut self, scope: &Scope<'_, 's>, value: &'v Json, left: Left<'v>) -> Outcome<'v> {
        self.count(1);
        if scope.depth > DEEP_MAX {
            self.limit.get_or_insert_with(|| format!("schemas are applied more than {DEEP_MAX} deep in one another"));
        }
        if self.limit.is_some() {
            return Err(self.finding(scope, ""));
        }
        let keywords = match scope.node {
            Json::Bool(false) => return Err(self.finding(scope, "false schema")),
            Json::Object(keywords) if !keywords.is_empty() => keywords,
            _ => return Ok(left),
        };
        let mut before = scope.parent;
        while let Some(scope_before) = before.filter(|before| before.value == scope.value) {
            if std::ptr::eq(scope_before.node, scope.node) {
                return Err(self.finding(scope, "the schema refers to itself here, without end"));
            }
            before = scope_before.parent;
        }
        let draft = self.document.resource(scope.node).draft;
        let mut node = Node { scope, keywords, draft, value, left, found: Vec::new() };
        on_enough_stack(|| self.node(&mut node))?;
        match node.found.len() {
            0 => Ok(node.left),
            1 => Err(node.found.swap_remove(0)),
            _ => Err(Finding { kind: Kind::Group, ..self.finding_of(scope, "validation failed", node.found) }),
        }
    }

    fn node<'v>(&mut self, node: &mut Node<'_, 's, 'v>) -> std::result::Result<(), Finding> {
        // In old drafts nothing else counts beside a reference.
        let alone = node.draft < 2019 && node.keywords.contains_key("$ref");
        if !alone {
            self.plain(node)?;
        }
        if let Some(target) = self.document.target(node.scope.node, "$ref") {
            match self.reference(node, target) {
                Err(finding) if alone => return Err(finding),
                Err(finding) => node.found.push(finding),
                Ok(()) if alone => return Ok(()),
                Ok(()) => {}
            }
        }
        match node.value {
            Json::Object(map) => self.object(node, map),
            Json::Array(items) => self.array(node, items),
            Json::String(text) => self.text(node, text),
            Json::Number(_) => self.number(node),
            _ => {}
        }
        if node.draft >= 2019 {
            self.dynamic_references(node);
        }
        self.combinations(node);
        if node.draft >= 2019 {
            self.unevaluated(node);
        }
        Ok(())
    }

    /// What is told alone when it is wrong: type, const, enum, format.
    fn plain(&mut self, node: &Node<'_, 's, '_>) -> std::result::Result<(), Finding> {
        let value = node.value;
        let kind = type_of(value);
        let whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
        let is = |wanted: &Json| wanted == kind || (wanted == "integer" && whole);
        match node.keywords.get("type") {
            Some(wanted @ Json::String(name)) if !is(wanted) => {
                return Err(self.finding(node.scope, format!("got {kind}, want {name}")));
            }
            Some(Json::Array(wanted)) if !wanted.is_empty() && !wanted.iter().any(is) => {
                let names = TYPES.iter().filter(|name| wanted.iter().any(|wanted| wanted == *name));
                let names: Vec<&str> = names.copied().collect();
                return Err(self.finding(node.scope, format!("got {kind}, want {}", names.join(" or "))));
            }
            _ => {}
        }
        if let Some(wanted) = node.keywords.get("const").filter(|wanted| node.draft >= 6 && !equal(value, wanted)) {
            return Err(self.finding(
                node.scope,
                match wanted {
                    Json::Array(_) | Json::Object(_) => "'const' failed".to_owned(),
                    wanted => format!("value must be {}", shown(wanted)),
                },
            ));
        }
        if let Some(Json::Array(wanted)) = node.keywords.get("enum")
            && !wanted.iter().any(|wanted| equal(value, wanted))
        {
            let names: Vec<String> = wanted.iter().map(shown).collect();
            return Err(self.finding(
                node.scope,
                match &names[..] {
                    _ if wanted.iter().any(|wanted| wanted.is_array() || wanted.is_object()) => {
                        "'enum' failed".to_owned()
                    }
                    [name] => format!("value must be {name}"),
                    names => format!("value must be one of {}", names.join(", ")),
                },
            ));
        }
        if let (Some(Json::String(format)), Json::String(text), true) =
            (node.keywords.get("format"), value, node.draft < 2019)
            && let Some(what) = formats::wrong(format, text)
        {
            return Err(self.finding(node.scope, format!("{} is not valid {format}: {what}", quote(text))));
        }
        Ok(())
    }

    /// Another schema of the same value.
    fn also<'v>(&mut self, node: &mut Node<'_, 's, 'v>, schema: &'s Json) -> std::result::Result<(), Finding> {
        let scope = Scope {
            node: schema,
            value: node.scope.value,
            depth: node.scope.depth + 1,
            step: Step::Same,
            parent: Some(node.scope),
        };
        let draft = self.document.resource(schema).draft;
        let left = Left::of(node.value, schema, !node.left.is_empty(), draft);
        let left = self.apply(&scope, node.value, left)?;
        node.left.merge(&left);
        Ok(())
    }

    /// A schema of what lies in the value.
    fn below(&mut self, node: &Node<'_, 's, '_>, schema: &'s Json, value: &Json, step: Step<'_>) -> Option<Finding> {
        let address = std::ptr::from_ref(value).addr();
        let scope = Scope { node: schema, value: address, depth: node.scope.depth + 1, step, parent: Some(node.scope) };
        let left = Left::of(value, schema, false, self.document.resource(schema).draft);
        self.apply(&scope, value, left).err()
    }

    fn reference(&mut self, node: &mut Node<'_, 's, '_>, target: Target<'s>) -> std::result::Result<(), Finding> {
        let Some(schema) = target.node else { return Ok(()) };
        self.also(node, schema).map_err(|cause| {
            let causes = if cause.kind == Kind::Group { cause.causes } else { vec![cause] };
            Finding { kind: Kind::Reference, ..self.finding_of(node.scope, "validation failed", causes) }
        })
    }

    fn dynamic_references(&mut self, node: &mut Node<'_, 's, '_>) {
        let document = self.document;
        let scopes = || std::iter::successors(Some(node.scope), |scope| scope.parent);
        let recursive = document.target(node.scope.node, "$recursiveRef").map(|target| {
            let is_open = |node: &Json| node.get("$recursiveAnchor") == Some(&Json::Bool(true));
            let open = |scope: &Scope<'_, 's>| Some(document.resource(scope.node).node).filter(|node| is_open(node));
            match target.node {
                Some(first) if is_open(first) => Target { node: scopes().filter_map(open).last().or(Some(first)) },
                _ => target,
            }
        });
        let dynamic = document.target(node.scope.node, "$dynamicRef").map(|target| {
            let told = node.keywords.get("$dynamicRef").and_then(Json::as_str).unwrap_or_default();
            let name = told.split_once('#').map_or("", |(_, name)| name);
            let named = |scope: &Scope<'_, 's>| document.resource(scope.node).dynamic.get(name).copied();
            match target.node {
                Some(first) if first.get("$dynamicAnchor").and_then(Json::as_str) == Some(name) => {
                    Target { node: scopes().filter_map(named).last().or(Some(first)) }
                }
                _ => target,
            }
        });
        for target in [recursive, dynamic].into_iter().flatten() {
            if let Err(finding) = self.reference(node, target) {
                node.found.push(finding);
            }
        }
    }

    fn text(&mut self, node: &mut Node<'_, 's, '_>, text: &str) {
        let length = text.chars().count();
        for (keyword, fits) in [("minLength", usize::ge as fn(&usize, &usize) -> bool), ("maxLength", usize::le)] {
            self.measured(node, keyword, length, fits);
        }
        if let Some(Json::String(pattern)) = node.keywords.get("pattern")
            && !self.document.patterns.get(pattern.as_str()).is_some_and(|regex| regex.is_match(text))
        {
            let what = format!("{} does not match pattern {}", quote(text), quote(pattern));
            node.found.push(self.finding(node.scope, what));
        }
    }

    /// A count against a limit.
    fn measured(&mut self, node: &mut Node<'_, 's, '_>, keyword: &str, got: usize, fits: fn(&usize, &usize) -> bool) {
        if let Some(want) = node.count(keyword)
            && !fits(&got, &want)
        {
            node.found.push(self.finding(node.scope, format!("{keyword}: got {}, want {}", count(got), count(want))));
        }
    }

    fn combinations(&mut self, node: &mut Node<'_, 's, '_>) {
        if let Some(schema) = node.keywords.get("not")
            && self.also(node, schema).is_ok()
        {
            node.found.push(self.finding(node.scope, "'not' failed"));
        }
        let all = node.schemas("allOf");
        let causes: Vec<Finding> = all.iter().filter_map(|schema| self.also(node, schema).err()).collect();
        if !causes.is_empty() {
            node.found.push(self.finding_of(node.scope, "'allOf' failed", causes));
        }
        self.any_of(node);
        self.one_of(node);
        if let Some(condition) = node.keywords.get("if").filter(|_| node.draft >= 7) {
            let next = if self.also(node, condition).is_ok() { "then" } else { "else" };
            if let Some(Err(finding)) = node.keywords.get(next).map(|schema| self.also(node, schema)) {
                node.found.push(finding);
            }
        }
    }

    fn any_of(&mut self, node: &mut Node<'_, 's, '_>) {
        let schemas = node.schemas("anyOf");
        let (mut matched, mut causes) = (schemas.is_empty(), Vec::new());
        for schema in schemas {
            match self.also(node, schema) {
                Err(finding) => causes.push(finding),
                Ok(()) => {
                    matched = true;
                    // Where somebody wants to know what has been looked at, all are asked.
                    if node.left.is_empty() {
                        break;
                    }
                }
            }
        }
        if !matched {
            node.found.push(self.finding_of(node.scope, "'anyOf' failed", causes));
        }
    }

    fn one_of(&mut self, node: &mut Node<'_, 's, '_>) {
        let schemas = node.schemas("oneOf");
        let (mut matched, mut causes) = (None, Vec::new());
        for (at, schema) in schemas.iter().enumerate() {
            match (self.also(node, schema), matched) {
                (Err(finding), None) => causes.push(finding),
                (Err(_), Some(_)) => {}
                (Ok(()), None) => matched = Some(at),
                (Ok(()), Some(first)) => {
                    node.found
                        .push(self.finding(node.scope, format!("'oneOf' failed, subschemas {first}, {at} matched")));
                    return;
                }
            }
        }
        if matched.is_none() && !schemas.is_empty() {
            node.found.push(self.finding_of(node.scope, "'oneOf' failed, none matched", causes));
        }
    }

    fn unevaluated(&mut self, node: &mut Node<'_, 's, '_>) {
        let left = node.left.clone();
        if let (Some(schema), Json::Object(map)) = (node.keywords.get("unevaluatedProperties"), node.value) {
            for name in left.names {
                let found = map.get(name).and_then(|value| self.below(node, schema, value, Step::Name(name)));
                node.found.extend(found);
            }
            node.left.names.clear();
        }
        if let (Some(schema), Json::Array(items)) = (node.keywords.get("unevaluatedItems"), node.value) {
            for at in left.items {
                let found = items.get(at).and_then(|value| self.below(node, schema, value, Step::Item(at)));
                node.found.extend(found);
            }
            node.left.items.clear();
        }
    }
}

impl<'s> Node<'_, 's, '_> {
    fn schemas(&self, keyword: &str) -> &'s [Json] {
        self.keywords.get(keyword).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn count(&self, keyword: &str) -> Option<usize> {
        let number = self.keywords.get(keyword)?.as_f64()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is too large is the largest")]
        Some(number as usize)
    }
}

//! What is asked of objects and lists.

use serde_json::{Map, Value as Json};

use super::{Left, Node, Run, Scope, Step, numbers::equal};
use crate::schema::finding::{Finding, Kind, count, quote, quotes};

/// The first item that the schema of a list does not look at itself.
pub fn first_left(schema: &Json, draft: u16) -> usize {
    let length = |keyword: &str| schema.get(keyword).and_then(Json::as_array).map_or(0, Vec::len);
    let (listed, rest) = if draft < 2020 { ("items", "additionalItems") } else { ("prefixItems", "items") };
    let is_whole = draft < 2020 && schema.get("items").is_some_and(|items| !items.is_array());
    if is_whole || schema.get(rest).is_some() { usize::MAX } else { length(listed) }
}

impl<'s> Run<'_, 's> {
    pub(super) fn object<'v>(&mut self, node: &mut Node<'_, 's, 'v>, map: &'v Map<String, Json>) {
        self.measured(node, "minProperties", map.len(), usize::ge);
        self.measured(node, "maxProperties", map.len(), usize::le);
        if let Some(missing) = missing(node.keywords.get("required"), map) {
            let what = if missing.len() == 1 { "property" } else { "properties" };
            node.found.push(self.finding(node.scope, format!("missing {what} {}", quotes(missing))));
        }
        self.dependencies(node, map, "dependencies");
        self.properties(node, map);
        if node.draft < 6 {
            return;
        }
        if let Some(schema) = node.keywords.get("propertyNames") {
            for name in map.keys() {
                if let Some(cause) = self.name(node, schema, name) {
                    let causes = if cause.kind == Kind::Group { cause.causes } else { vec![cause] };
                    let what = format!("invalid propertyName {}", quote(name));
                    node.found.push(self.finding_of(node.scope, what, causes));
                }
            }
        }
        if node.draft >= 2019 {
            self.dependencies(node, map, "dependentSchemas");
            self.dependencies(node, map, "dependentRequired");
        }
    }

    /// A name is a value of its own, with places of its own.
    fn name(&mut self, node: &Node<'_, 's, '_>, schema: &'s Json, name: &str) -> Option<Finding> {
        let value = Json::String(name.to_owned());
        let address = std::ptr::from_ref(&value).addr();
        let depth = node.scope.depth + 1;
        let scope = Scope { node: schema, value: address, depth, step: Step::Same, parent: None };
        self.apply(&scope, &value, Left::default()).err()
    }

    /// What is asked where a property is there: other properties, or another schema.
    fn dependencies(&mut self, node: &mut Node<'_, 's, '_>, map: &Map<String, Json>, keyword: &str) {
        let Some(Json::Object(dependencies)) = node.keywords.get(keyword) else { return };
        for (name, asked) in dependencies.iter().filter(|(name, _)| map.contains_key(*name)) {
            if asked.is_array() {
                if let Some(missing) = missing(Some(asked), map) {
                    let what = format!("properties {} required, if {} exists", quotes(missing), quote(name));
                    node.found.push(self.finding(node.scope, what));
                }
            } else if let Err(finding) = self.also(node, asked) {
                node.found.push(finding);
            }
        }
    }

    fn properties<'v>(&mut self, node: &mut Node<'_, 's, 'v>, map: &'v Map<String, Json>) {
        let named = node.keywords.get("properties");
        let by_pattern = node.keywords.get("patternProperties").and_then(Json::as_object);
        let additional = node.keywords.get("additionalProperties");
        let mut refused = Vec::new();
        for (name, value) in map {
            let mut schemas: Vec<&'s Json> = named.and_then(|named| named.get(name)).into_iter().collect();
            let document = self.document;
            let fits = |pattern: &str| document.patterns.get(pattern).is_some_and(|regex| regex.is_match(name));
            let patterns = by_pattern.into_iter().flatten().filter(|(pattern, _)| fits(pattern));
            schemas.extend(patterns.map(|(_, schema)| schema));
            match additional {
                Some(Json::Bool(false)) if schemas.is_empty() => {
                    refused.push(name.as_str());
                    node.left.names.remove(name.as_str());
                    continue;
                }
                Some(schema) if schemas.is_empty() => schemas.push(schema),
                _ => {}
            }
            if !schemas.is_empty() {
                node.left.names.remove(name.as_str());
            }
            for schema in schemas {
                let found = self.below(node, schema, value, Step::Name(name));
                node.found.extend(found);
            }
        }
        if !refused.is_empty() {
            node.found.push(self.finding(node.scope, format!("additional properties {} not allowed", quotes(refused))));
        }
    }

    pub(super) fn array<'v>(&mut self, node: &mut Node<'_, 's, 'v>, items: &'v [Json]) {
        self.measured(node, "minItems", items.len(), usize::ge);
        self.measured(node, "maxItems", items.len(), usize::le);
        if node.keywords.get("uniqueItems") == Some(&Json::Bool(true))
            && let Some((first, second)) = self.duplicates(items)
        {
            node.found.push(self.finding(node.scope, format!("items at {first} and {second} are equal")));
        }
        let (listed, rest) = if node.draft < 2020 { ("items", "additionalItems") } else { ("prefixItems", "items") };
        let whole = node.keywords.get("items").filter(|items| node.draft < 2020 && !items.is_array());
        let schemas = node.schemas(listed);
        let rest = if whole.is_some() {
            whole
        } else if node.draft < 2020 && !node.keywords.contains_key("items") {
            None
        } else {
            node.keywords.get(rest)
        };
        for (at, item) in items.iter().enumerate() {
            let Some(schema) = schemas.get(at).or(rest) else { break };
            if schemas.get(at).is_none() && whole.is_none() && node.draft < 2020 && schema == &Json::Bool(false) {
                let what = format!("last {} additionalItem(s) not allowed", count(items.len() - at));
                node.found.push(self.finding(node.scope, what));
                break;
            }
            let found = self.below(node, schema, item, Step::Item(at));
            node.found.extend(found);
        }
        if let Some(schema) = node.keywords.get("contains").filter(|_| node.draft >= 6) {
            self.contained(node, schema, items);
        }
    }

    fn contained<'v>(&mut self, node: &mut Node<'_, 's, 'v>, schema: &'s Json, items: &'v [Json]) {
        let (mut causes, mut matched) = (Vec::new(), Vec::new());
        for (at, item) in items.iter().enumerate() {
            match self.below(node, schema, item, Step::Item(at)) {
                Some(finding) => causes.push(finding),
                None => {
                    matched.push(at.to_string());
                    if node.draft >= 2020 {
                        node.left.items.remove(&at);
                    }
                }
            }
        }
        let told = |least: &str, want: usize| match matched.len() {
            0 => format!("{least} {} items required to match contains schema, but none matched", count(want)),
            got => format!(
                "{least} {} items required to match contains schema, but matched {} items at {}",
                count(want),
                count(got),
                matched.join(" ")
            ),
        };
        match node.count("minContains").filter(|_| node.draft >= 2019) {
            Some(least) if matched.len() < least => {
                node.found.push(self.finding_of(node.scope, told("min", least), causes));
            }
            None if matched.is_empty() => {
                node.found.push(self.finding_of(node.scope, "no items match contains schema", causes));
            }
            _ => {}
        }
        if let Some(most) = node.count("maxContains").filter(|most| node.draft >= 2019 && matched.len() > *most) {
            node.found.push(self.finding(node.scope, told("max", most)));
        }
    }

    /// The first pair of equal items. Each comparison is a step.
    fn duplicates(&mut self, items: &[Json]) -> Option<(usize, usize)> {
        for (second, item) in items.iter().enumerate() {
            self.count(second);
            if self.limit.is_some() {
                return None;
            }
            if let Some(first) = items[..second].iter().position(|other| equal(item, other)) {
                return Some((first, second));
            }
        }
        None
    }
}

fn missing<'s>(asked: Option<&'s Json>, map: &Map<String, Json>) -> Option<Vec<&'s str>> {
    let names = asked?.as_array()?.iter().filter_map(Json::as_str);
    let missing: Vec<&str> = names.filter(|name| !map.contains_key(*name)).collect();
    if missing.is_empty() { None } else { Some(missing) }
}

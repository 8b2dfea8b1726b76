//! A chart, values and a release in; text for each of its templates out.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    chart::{Chart, File},
    data, dependencies,
    error::{Error, Result},
    functions::{All, State, WARNING, without_no_value},
    objects::{self, VALUES},
    release::{Capabilities, Release},
    schema,
    template::{
        self, Run, Set, Text,
        error::{Class, Error as TemplateError},
        value::{Entries, Value},
    },
    values::{Nulls, Table, coalesced},
    version::is_in_range,
    world::World,
};

/// What each template that is no partial has become, by its path.
pub type Rendered = BTreeMap<String, String>;

/// Renders a chart with what is set over its values.
///
/// # Errors
/// What is wrong with the values or a template, in Helm's words, or that a limit was passed.
pub fn render(
    chart: &Chart,
    set: &Table,
    release: &Release,
    capabilities: &Capabilities,
    world: World,
) -> Result<Rendered> {
    rendered(chart, &Parsed::default(), set, release, capabilities, world, true)
}

/// As [`render`], whatever the schemas of the chart say of the values.
///
/// # Errors
/// As [`render`].
pub fn render_unchecked(
    chart: &Chart,
    set: &Table,
    release: &Release,
    capabilities: &Capabilities,
    world: World,
) -> Result<Rendered> {
    rendered(chart, &Parsed::default(), set, release, capabilities, world, false)
}

/// What a template becomes that is in no chart and is given no data. `name` is for what is wrong with it.
///
/// # Errors
/// What is wrong with it, or that a limit was passed.
pub fn render_text(name: &str, text: &str, world: World) -> Result<String> {
    let parsed = template::parse(name, text, &All).map_err(|error| Error::Template(error.text().to_owned()))?;
    let mut set = Set::default();
    set.add(&parsed);
    let mut run = Run::new(Box::new(State::new(world)));
    let text = template::execute(&mut run, &set, name, Value::Nil);
    text.map(without_no_value).map_err(|error| execution_error(&error))
}

/// A chart whose templates are read once, for many renders, also at the same time.
#[derive(Debug)]
pub struct Prepared {
    chart: Chart,
    parsed: Parsed,
}

impl Prepared {
    /// Templates are read when they are first rendered: which ones are is decided by values.
    pub fn new(chart: Chart) -> Self {
        Self { chart, parsed: Parsed::default() }
    }

    pub fn chart(&self) -> &Chart {
        &self.chart
    }

    /// Bytes of the templates that have been read so far; one counts for each chart that has it under a name of its own. What is kept of
    /// them grows with it.
    pub fn read_bytes(&self) -> usize {
        self.parsed.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(|(data, _)| data.len()).sum()
    }

    /// As [`render`].
    ///
    /// # Errors
    /// As [`render`].
    pub fn render(
        &self,
        set: &Table,
        release: &Release,
        capabilities: &Capabilities,
        world: World,
    ) -> Result<Rendered> {
        rendered(&self.chart, &self.parsed, set, release, capabilities, world, true)
    }
}

/// Templates that have been read, by their paths and the files that they were.
#[derive(Debug, Default)]
struct Parsed(Mutex<HashMap<String, Kept>>);

/// The file, and what was read from it.
type Kept = (Arc<[u8]>, Arc<Text>);

impl Parsed {
    fn text(&self, page: &Page<'_>) -> Result<Arc<Text>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&page.path).cloned();
        if let Some((_, text)) = known.filter(|(data, _)| Arc::ptr_eq(data, &page.file.data)) {
            return Ok(text);
        }
        let text = template::parse(&page.path, &page.file.text(), &All);
        let text = Arc::new(text.map_err(|error| parse_error(&page.path, &error))?);
        let kept = (page.file.data.clone(), text.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(page.path.clone(), kept);
        Ok(text)
    }
}

fn rendered(
    chart: &Chart,
    parsed: &Parsed,
    set: &Table,
    release: &Release,
    capabilities: &Capabilities,
    world: World,
    is_checked: bool,
) -> Result<Rendered> {
    if chart.is_library() {
        // Nothing would come of it, and an empty release would be taken for one that is there.
        return Err(Error::Chart(format!("{} charts are not installable", chart.metadata.kind)));
    }
    let chart = dependencies::resolved(chart, set)?;
    let values = coalesced(&chart, set, Nulls::Delete)?;
    if is_checked {
        schema::check(&chart, &values)?;
    }
    let wanted = &chart.metadata.kube_version;
    if !wanted.is_empty() && !is_in_range(wanted, &capabilities.kube_version) {
        let known = &capabilities.kube_version;
        return Err(Error::Chart(format!(
            "chart requires kubeVersion: {wanted} which is incompatible with Kubernetes {known}"
        )));
    }
    let mut pages = Vec::new();
    let values = Value::typed_map(&VALUES, data::entries_of_json(&values));
    let shared = Shared { release: objects::release(release), capabilities: objects::capabilities(capabilities) };
    collect(&chart, chart.name(), true, &values, &shared, &mut pages);
    // Deeper paths first, so that what a chart defines wins over what its dependencies do.
    pages.sort_by(|left, right| order(&right.path).cmp(&order(&left.path)));
    let mut seen = HashSet::new();
    pages.retain(|page| seen.insert(page.path.clone()));
    carry_out(&pages, parsed, world)
}

/// The objects of `crds/` in a chart and in those of its dependencies that these values switch on.
///
/// # Errors
/// That values cannot be merged.
pub fn crds(chart: &Chart, set: &Table) -> Result<Vec<File>> {
    Ok(dependencies::resolved(chart, set)?.crds())
}

/// What all charts of a release see.
struct Shared {
    release: Value,
    capabilities: Value,
}

/// A template file, and what it is rendered with.
struct Page<'c> {
    path: String,
    base: String,
    file: &'c File,
    data: Value,
}

fn order(path: &str) -> (usize, &str) {
    (path.matches('/').count(), path)
}

fn collect<'c>(
    chart: &'c Chart,
    path: &str,
    is_root: bool,
    values: &Value,
    shared: &Shared,
    pages: &mut Vec<Page<'c>>,
) -> Value {
    let mut inner = Entries::new();
    let charts = Value::map(Entries::new());
    let data = Value::map(Entries::from([
        ("Capabilities".into(), shared.capabilities.clone()),
        ("Chart".into(), objects::chart(chart, is_root)),
        ("Files".into(), objects::files(&chart.files)),
        ("Release".into(), shared.release.clone()),
        ("Subcharts".into(), charts.clone()),
        ("Values".into(), values.clone()),
    ]));
    for child in &chart.dependencies {
        let own = values.as_map().and_then(|values| values.get(child.name()));
        let own = match own {
            // The same map under another type: what one sets, the other sees.
            Some(Value::Map(map)) => Value::Map(map),
            _ => Value::typed_map(&VALUES, Entries::new()),
        };
        let path = format!("{path}/charts/{}", child.name());
        let seen = collect(child, &path, false, &own, shared, pages);
        inner.insert(child.name().into(), seen);
    }
    if let Value::Map(charts) = &charts {
        *charts.entries.borrow_mut() = inner;
    }
    for file in &chart.templates {
        let name = file.name.rsplit('/').next().unwrap_or_default();
        if chart.is_library() && !name.starts_with('_') {
            continue;
        }
        pages.push(Page {
            path: crate::functions::paths::clean(&format!("{path}/{}", file.name)),
            base: format!("{path}/templates"),
            file,
            data: data.clone(),
        });
    }
    data
}

fn carry_out(pages: &[Page<'_>], parsed: &Parsed, world: World) -> Result<Rendered> {
    let mut set = Set::default();
    for page in pages {
        set.add(&*parsed.text(page)?);
    }
    let mut run = Run::new(Box::new(State::new(world)));
    let mut rendered = Rendered::new();
    for page in pages {
        if page.path.rsplit('/').next().is_some_and(|name| name.starts_with('_')) {
            continue;
        }
        if let Value::Map(data) = &page.data {
            let told =
                Entries::from([("BasePath".into(), Value::text(&page.base)), ("Name".into(), Value::text(&page.path))]);
            data.entries.borrow_mut().insert("Template".into(), Value::typed_map(&VALUES, told));
            run.changes(data);
        }
        let text = template::execute(&mut run, &set, &page.path, page.data.clone());
        let text = text.map_err(|error| execution_error(&error))?;
        rendered.insert(page.path.clone(), without_no_value(text));
    }
    Ok(rendered)
}

/// Helm tells where, and the last part of what.
fn parse_error(path: &str, error: &TemplateError) -> Error {
    if error.class() == Class::Limit {
        return Error::Limit(error.text().to_owned());
    }
    let parts: Vec<&str> = error.text().split(": ").collect();
    match parts[..] {
        [_, place, .., what] => Error::Template(format!("parse error at ({place}): {what}")),
        _ => Error::Template(format!("parse error in ({path}): {}", error.text())),
    }
}

/// Of what `required` and `fail` say, only that is told.
fn execution_error(error: &TemplateError) -> Error {
    let text = error.text();
    if error.class() == Class::Limit {
        return Error::Limit(text.to_owned());
    }
    let parts: Vec<&str> = text.splitn(3, ": ").collect();
    let [_, place, rest] = parts[..] else { return Error::Template(text.to_owned()) };
    let (start, end) = WARNING;
    let warning = rest.find(start).and_then(|from| {
        let inner = &rest[from + start.len()..];
        inner.rfind(end).map(|to| &inner[..to])
    });
    Error::Template(match warning {
        Some(warning) => format!("execution error at ({place}): {warning}"),
        None => text.to_owned(),
    })
}

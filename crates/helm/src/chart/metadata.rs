//! `Chart.yaml`: who a chart is and what it depends on.

use serde_json::{Map, Value as Json};

use crate::{
    error::{Error, Result},
    template::text::{float_text, quoted},
    version::Version,
};

/// `chart.Metadata` of Helm.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub name: String,
    pub home: String,
    pub sources: Vec<String>,
    pub version: String,
    pub description: String,
    pub keywords: Vec<String>,
    /// Name, email and URL of each.
    pub maintainers: Vec<[String; 3]>,
    pub icon: String,
    pub api_version: String,
    pub condition: String,
    pub tags: String,
    pub app_version: String,
    pub deprecated: bool,
    pub annotations: Map<String, Json>,
    pub kube_version: String,
    pub dependencies: Vec<Dependency>,
    /// `type`: application (or empty) or library.
    pub kind: String,
}

#[derive(Clone, Debug, Default)]
pub struct Dependency {
    pub name: String,
    pub version: String,
    pub repository: String,
    pub condition: String,
    pub tags: Vec<String>,
    pub import_values: Vec<Json>,
    pub alias: String,
}

/// A number or a truth where text is wanted becomes text, as Helm's reader does it: versions are often written as numbers.
pub fn text(value: Option<&Json>) -> String {
    match value {
        Some(Json::String(text)) => text.clone(),
        Some(Json::Bool(truth)) => truth.to_string(),
        Some(Json::Number(number)) => {
            let number = number.as_f64().unwrap_or_default();
            if number.fract() == 0.0 && number.abs() < 1e15 {
                return format!("{number}");
            }
            #[expect(clippy::cast_possible_truncation, reason = "Helm writes them with single precision")]
            let single = (number as f32).to_string().parse().unwrap_or(number);
            float_text(single, 'g', None)
        }
        _ => String::new(),
    }
}

fn texts(value: Option<&Json>) -> Vec<String> {
    value.and_then(Json::as_array).map(|items| items.iter().map(|item| text(Some(item))).collect()).unwrap_or_default()
}

impl Metadata {
    pub fn of(from: &Map<String, Json>) -> Self {
        let mut metadata = Self { api_version: "v1".to_owned(), ..Self::default() };
        metadata.read(from);
        metadata
    }

    /// What the `requirements.yaml` of an old chart adds.
    pub fn require(&mut self, from: &Map<String, Json>) {
        self.read(from);
    }

    fn read(&mut self, from: &Map<String, Json>) {
        for (key, value) in from {
            let value = Some(value);
            match key.as_str() {
                "name" => self.name = text(value),
                "home" => self.home = text(value),
                "sources" => self.sources = texts(value),
                "version" => self.version = text(value),
                "description" => self.description = text(value),
                "keywords" => self.keywords = texts(value),
                "maintainers" => {
                    let items = value.and_then(Json::as_array).into_iter().flatten();
                    self.maintainers =
                        items.map(|item| ["name", "email", "url"].map(|key| text(item.get(key)))).collect();
                }
                "icon" => self.icon = text(value),
                "apiVersion" => self.api_version = text(value),
                "condition" => self.condition = text(value),
                "tags" => self.tags = text(value),
                "appVersion" => self.app_version = text(value),
                "deprecated" => self.deprecated = value == Some(&Json::Bool(true)),
                "annotations" => {
                    let entries = value.and_then(Json::as_object).into_iter().flatten();
                    self.annotations = entries.map(|(key, value)| (key.clone(), text(Some(value)).into())).collect();
                }
                "kubeVersion" => self.kube_version = text(value),
                "dependencies" => {
                    let items = value.and_then(Json::as_array).into_iter().flatten();
                    self.dependencies = items.map(Dependency::of).collect();
                }
                "type" => self.kind = text(value),
                _ => {}
            }
        }
    }

    /// # Errors
    /// What Helm refuses in it.
    pub fn validate(&self) -> Result<()> {
        let fail = |what: String| Err(Error::Chart(format!("validation: {what}")));
        if self.api_version.is_empty() {
            return fail("chart.metadata.apiVersion is required".to_owned());
        }
        if self.name.is_empty() {
            return fail("chart.metadata.name is required".to_owned());
        }
        if matches!(self.name.as_str(), "." | "..") {
            return fail(format!("chart.metadata.name {} is not allowed", quoted(&self.name)));
        }
        if self.name.contains('/') {
            return fail(format!("chart.metadata.name {} is invalid", quoted(&self.name)));
        }
        if self.version.is_empty() {
            return fail("chart.metadata.version is required".to_owned());
        }
        if Version::parse(&self.version).is_err() {
            return fail(format!("chart.metadata.version {} is invalid", quoted(&self.version)));
        }
        if !matches!(self.kind.as_str(), "" | "application" | "library") {
            return fail("chart.metadata.type must be application or library".to_owned());
        }
        let mut known: Vec<&str> = Vec::new();
        for dependency in &self.dependencies {
            let in_alias = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if !dependency.alias.chars().all(in_alias) {
                return fail(format!("dependency {} has disallowed characters in the alias", quoted(&dependency.name)));
            }
            let key = dependency.key();
            if known.contains(&key) {
                return fail(format!("more than one dependency with name or alias {}", quoted(key)));
            }
            known.push(key);
        }
        Ok(())
    }
}

impl Dependency {
    fn of(from: &Json) -> Self {
        Self {
            name: text(from.get("name")),
            version: text(from.get("version")),
            repository: text(from.get("repository")),
            condition: text(from.get("condition")),
            tags: texts(from.get("tags")),
            import_values: from.get("import-values").and_then(Json::as_array).cloned().unwrap_or_default(),
            alias: text(from.get("alias")),
        }
    }

    /// What the chart is called in the one that depends on it.
    pub fn key(&self) -> &str {
        if self.alias.is_empty() { &self.name } else { &self.alias }
    }
}

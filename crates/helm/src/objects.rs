//! The objects that Helm gives to templates beside the values, with their fields and methods.

use std::sync::Arc;

use crate::{
    chart::{Chart, Dependency, File, Metadata},
    data::{self, yaml},
    functions::{globs::Glob, paths},
    release::{Capabilities, Release},
    template::{
        Scope,
        error::{Error, Result},
        function::{Args, Function},
        value::{Entries, Field, Struct, TEXT_LIST, TEXT_MAP, Type, Value},
    },
};

pub static VALUES: Type = Type { methods: VALUES_METHODS, ..Type::plain("chartutil.Values") };
static CHART: Type = Type::plain("struct { chart.Metadata; IsRoot bool }");
static MAINTAINER: Type = Type::plain("chart.Maintainer");
static DEPENDENCY: Type = Type::plain("chart.Dependency");
static MAINTAINERS: Type = Type::plain("[]*chart.Maintainer");
static DEPENDENCIES: Type = Type::plain("[]*chart.Dependency");
static CAPABILITIES: Type = Type::plain("chartutil.Capabilities");
static HELM_VERSION: Type = Type::plain("version.BuildInfo");
static VERSIONS: Type = Type { methods: VERSIONS_METHODS, ..Type::plain("chartutil.VersionSet") };
static KUBE_VERSION: Type =
    Type { methods: KUBE_VERSION_METHODS, text: Some(git_version), ..Type::plain("chartutil.KubeVersion") };
static FILES: Type =
    Type { zero: || Value::Bytes(Arc::from([])), methods: FILES_METHODS, ..Type::plain("engine.files") };

/// What values can do besides being a map. Source: helm.sh/helm/v3 pkg/chartutil/values.go. `Encode` wants a writer, which no template has.
const VALUES_METHODS: &[Function] = &[
    Function {
        name: "AsMap",
        takes: "",
        run: |_, args| Ok(Value::map(args.map(0).map(|values| values.entries.borrow().clone()).unwrap_or_default())),
    },
    Function { name: "YAML", takes: "", run: |_, args| Ok(Value::text(&yaml::text(args.at(0))?)) },
    Function {
        name: "Table",
        takes: "s",
        run: |_, args| {
            let entries = table(args.at(0), args.text(1).split('.'))?;
            Ok(Value::typed_map(&VALUES, entries))
        },
    },
    Function { name: "PathValue", takes: "s", run: path_value },
];

/// The entries of the table at a path.
fn table<'p>(values: &Value, path: impl Iterator<Item = &'p str>) -> Result<Entries> {
    let mut at = values.clone();
    for key in path {
        let inner = at.as_map().and_then(|map| map.get(key)).filter(|inner| inner.as_map().is_some());
        at = match inner {
            Some(inner) => inner,
            None => return Error::call(format!("{key:?} is not a table")),
        };
    }
    Ok(at.as_map().map(|map| map.entries.borrow().clone()).unwrap_or_default())
}

/// What is at a path and is no table.
fn path_value(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let path = args.text(1);
    if path.is_empty() {
        return Error::call("YAML path cannot be empty");
    }
    let (tables, key) = path.rsplit_once('.').map_or((None, path), |(tables, key)| (Some(tables), key));
    let found = match tables {
        Some(tables) => table(args.at(0), tables.split('.')).ok().and_then(|entries| entries.get(key).cloned()),
        None => args.map(0).and_then(|values| values.get(key)),
    };
    match found.filter(|value| value.as_map().is_none()) {
        Some(value) => Ok(value),
        None => Error::call(format!("{key:?} is not a value")),
    }
}

const VERSIONS_METHODS: &[Function] = &[Function {
    name: "Has",
    takes: "s",
    run: |_, args| {
        let held = args.at(0).items().unwrap_or_default();
        Ok(held.iter().any(|version| version.as_str() == Some(args.text(1))).into())
    },
}];

const KUBE_VERSION_METHODS: &[Function] = &[
    Function { name: "GitVersion", takes: "", run: kube_version },
    Function { name: "String", takes: "", run: kube_version },
];

const FILES_METHODS: &[Function] = &[
    Function {
        name: "AsConfig",
        takes: "",
        run: |_, args| by_name(&args, |bytes| Value::from(String::from_utf8_lossy(bytes).into_owned())),
    },
    Function { name: "AsSecrets", takes: "", run: |_, args| by_name(&args, |bytes| data::base64(bytes).into()) },
    Function { name: "Get", takes: "s", run: |_, args| Ok(String::from_utf8_lossy(&bytes(&args)).into_owned().into()) },
    Function { name: "GetBytes", takes: "s", run: |_, args| Ok(Value::Bytes(bytes(&args))) },
    Function { name: "Glob", takes: "s", run: glob },
    Function {
        name: "Lines",
        takes: "s",
        run: |_, args| {
            let bytes = bytes(&args);
            let text = String::from_utf8_lossy(&bytes);
            if text.is_empty() {
                return Ok(Value::texts([]));
            }
            Ok(Value::texts(text.strip_suffix('\n').unwrap_or(&text).split('\n').map(str::to_owned)))
        },
    },
];

fn git_version(version: &Struct) -> String {
    version.field("Version").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn kube_version(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    Ok(match args.at(0) {
        Value::Struct(version) => git_version(version).into(),
        _ => Value::text(""),
    })
}

fn bytes(args: &Args) -> Arc<[u8]> {
    match args.map(0).and_then(|files| files.get(args.text(1))) {
        Some(Value::Bytes(bytes)) => bytes,
        _ => Arc::from([]),
    }
}

fn glob(_: &mut Scope<'_>, args: Args) -> Result<Value> {
    let glob = Glob::parse(args.text(1)).or_else(|_| Glob::parse("**"))?;
    let Some(files) = args.map(0) else { return Ok(Value::Nil) };
    let entries = files.entries.borrow();
    let matching = entries.iter().filter(|(name, _)| glob.matches(name));
    Ok(Value::typed_map(&FILES, matching.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()))
}

/// The files by the last part of their paths, as YAML.
fn by_name(args: &Args, told: impl Fn(&[u8]) -> Value) -> Result<Value> {
    let mut entries = Entries::new();
    if let Some(files) = args.map(0) {
        for (name, bytes) in files.entries.borrow().iter() {
            if let Value::Bytes(bytes) = bytes {
                entries.insert(paths::base(name).into(), told(bytes));
            }
        }
    }
    let text = yaml::text(&Value::typed_map(&TEXT_MAP, entries))?;
    Ok(Value::text(text.strip_suffix('\n').unwrap_or(&text)))
}

fn structure(ty: &'static Type, pointer: bool, fields: Vec<(&'static str, (&'static str, bool), Value)>) -> Value {
    let fields = fields.into_iter().map(|(name, json, value)| Field { name, json, value }).collect();
    Value::Struct(std::rc::Rc::new(Struct { ty, pointer, fields }))
}

pub fn files(files: &[File]) -> Value {
    let entry = |file: &File| (Arc::from(file.name.as_str()), Value::Bytes(file.data.clone()));
    Value::typed_map(&FILES, files.iter().map(entry).collect())
}

pub fn release(release: &Release) -> Value {
    Value::map(Entries::from([
        ("IsInstall".into(), Value::Bool(!release.is_upgrade)),
        ("IsUpgrade".into(), Value::Bool(release.is_upgrade)),
        ("Name".into(), Value::text(&release.name)),
        ("Namespace".into(), Value::text(&release.namespace)),
        ("Revision".into(), Value::Int(release.revision)),
        ("Service".into(), Value::text("Helm")),
    ]))
}

pub fn capabilities(capabilities: &Capabilities) -> Value {
    let text = |text: &str| Value::text(text);
    let kube_version = vec![
        ("Version", ("Version", false), text(&capabilities.kube_version)),
        ("Major", ("Major", false), text(&capabilities.major)),
        ("Minor", ("Minor", false), text(&capabilities.minor)),
    ];
    let helm_version = vec![
        ("Version", ("version", true), text(&capabilities.helm_version)),
        ("GitCommit", ("git_commit", true), text("")),
        ("GitTreeState", ("git_tree_state", true), text("")),
        ("GoVersion", ("go_version", true), text("")),
    ];
    let versions = capabilities.api_versions.iter().map(|version| text(version)).collect();
    structure(
        &CAPABILITIES,
        true,
        vec![
            ("KubeVersion", ("KubeVersion", false), structure(&KUBE_VERSION, false, kube_version)),
            ("APIVersions", ("APIVersions", false), Value::typed_list(&VERSIONS, versions)),
            ("HelmVersion", ("HelmVersion", false), structure(&HELM_VERSION, false, helm_version)),
        ],
    )
}

fn texts(texts: &[String]) -> Value {
    if texts.is_empty() { Value::absent_list(&TEXT_LIST) } else { Value::texts(texts.iter().cloned()) }
}

fn maintainer([name, email, url]: &[String; 3]) -> Value {
    let field = |name, json, text: &String| (name, (json, true), Value::text(text));
    let fields = vec![field("Name", "name", name), field("Email", "email", email), field("URL", "url", url)];
    structure(&MAINTAINER, true, fields)
}

fn dependency(of: &Dependency) -> Value {
    let text = |text: &str| Value::text(text);
    let imported = of.import_values.iter().map(data::of_json).collect();
    structure(
        &DEPENDENCY,
        true,
        vec![
            ("Name", ("name", false), text(&of.name)),
            ("Version", ("version", true), text(&of.version)),
            ("Repository", ("repository", false), text(&of.repository)),
            ("Condition", ("condition", true), text(&of.condition)),
            ("Tags", ("tags", true), texts(&of.tags)),
            ("Enabled", ("enabled", true), Value::Bool(true)),
            ("ImportValues", ("import-values", true), Value::list(imported)),
            ("Alias", ("alias", true), text(&of.alias)),
        ],
    )
}

pub fn chart(chart: &Chart, is_root: bool) -> Value {
    let text = |text: &str| Value::text(text);
    let of: &Metadata = &chart.metadata;
    // Slices that are nil where there is nothing.
    let several = |ty, items: Vec<Value>| {
        if items.is_empty() { Value::absent_list(ty) } else { Value::typed_list(ty, items) }
    };
    let annotations = data::entries_of_json(&of.annotations);
    structure(
        &CHART,
        false,
        vec![
            ("Name", ("name", true), text(&of.name)),
            ("Home", ("home", true), text(&of.home)),
            ("Sources", ("sources", true), texts(&of.sources)),
            ("Version", ("version", true), text(&of.version)),
            ("Description", ("description", true), text(&of.description)),
            ("Keywords", ("keywords", true), texts(&of.keywords)),
            (
                "Maintainers",
                ("maintainers", true),
                several(&MAINTAINERS, of.maintainers.iter().map(maintainer).collect()),
            ),
            ("Icon", ("icon", true), text(&of.icon)),
            ("APIVersion", ("apiVersion", true), text(&of.api_version)),
            ("Condition", ("condition", true), text(&of.condition)),
            ("Tags", ("tags", true), text(&of.tags)),
            ("AppVersion", ("appVersion", true), text(&of.app_version)),
            ("Deprecated", ("deprecated", true), Value::Bool(of.deprecated)),
            ("Annotations", ("annotations", true), Value::typed_map(&TEXT_MAP, annotations)),
            ("KubeVersion", ("kubeVersion", true), text(&of.kube_version)),
            (
                "Dependencies",
                ("dependencies", true),
                several(&DEPENDENCIES, of.dependencies.iter().map(dependency).collect()),
            ),
            ("Type", ("type", true), text(&of.kind)),
            ("IsRoot", ("IsRoot", false), Value::Bool(is_root)),
        ],
    )
}

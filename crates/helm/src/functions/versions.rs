//! `semver` and `semverCompare`.

use std::rc::Rc;

use crate::{
    template::{
        error::{Error, Result},
        function::{Args, Function},
        value::{Field, Struct, Type, Value},
    },
    version::{Constraints, Version},
};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "semver", takes: "s", run: |_, args| Ok(object(&version(args.text(0))?)) },
    Function {
        name: "semverCompare",
        takes: "ss",
        run: |_, args| {
            let constraints = Constraints::parse(args.text(0)).or_else(Error::call)?;
            Ok(constraints.accepts(&version(args.text(1))?).into())
        },
    },
];

static VERSION: Type = Type {
    methods: METHODS,
    text: Some(|of| read(of).text()),
    json: Some(|of| read(of).text().into()),
    ..Type::plain("semver.Version")
};

const METHODS: &[Function] = &[
    Function {
        name: "Compare",
        takes: "a",
        run: |_, args| Ok(Value::Int(of(&args, 0)?.compare(&of(&args, 1)?) as i64)),
    },
    Function { name: "Equal", takes: "a", run: |_, args| Ok(of(&args, 0)?.compare(&of(&args, 1)?).is_eq().into()) },
    Function {
        name: "GreaterThan",
        takes: "a",
        run: |_, args| Ok(of(&args, 0)?.compare(&of(&args, 1)?).is_gt().into()),
    },
    Function { name: "IncMajor", takes: "", run: |_, args| raised(&args, |v| (v.major + 1, 0, 0)) },
    Function { name: "IncMinor", takes: "", run: |_, args| raised(&args, |v| (v.major, v.minor + 1, 0)) },
    Function {
        name: "IncPatch",
        takes: "",
        run: |_, args| raised(&args, |v| (v.major, v.minor, v.patch + u64::from(v.pre.is_empty()))),
    },
    Function { name: "LessThan", takes: "a", run: |_, args| Ok(of(&args, 0)?.compare(&of(&args, 1)?).is_lt().into()) },
    Function { name: "Major", takes: "", run: |_, args| Ok(Value::Uint64(of(&args, 0)?.major)) },
    Function { name: "Metadata", takes: "", run: |_, args| Ok(of(&args, 0)?.metadata.into()) },
    Function { name: "Minor", takes: "", run: |_, args| Ok(Value::Uint64(of(&args, 0)?.minor)) },
    Function { name: "Original", takes: "", run: |_, args| Ok(of(&args, 0)?.original.into()) },
    Function { name: "Patch", takes: "", run: |_, args| Ok(Value::Uint64(of(&args, 0)?.patch)) },
    Function { name: "Prerelease", takes: "", run: |_, args| Ok(of(&args, 0)?.pre.into()) },
    Function { name: "String", takes: "", run: |_, args| Ok(of(&args, 0)?.text().into()) },
];

fn version(text: &str) -> Result<Version> {
    Version::parse(text).or_else(Error::call)
}

fn object(version: &Version) -> Value {
    let number = |name, number| Field { name, json: ("", false), value: Value::Uint64(number) };
    let text = |name, text: &str| Field { name, json: ("", false), value: Value::text(text) };
    let fields = vec![
        number("major", version.major),
        number("minor", version.minor),
        number("patch", version.patch),
        text("pre", &version.pre),
        text("metadata", &version.metadata),
        text("original", &version.original),
    ];
    Value::Struct(Rc::new(Struct { ty: &VERSION, pointer: true, fields }))
}

fn read(object: &Struct) -> Version {
    let original = object.field("original").and_then(Value::as_str).unwrap_or_default();
    let number = |name| if let Some(Value::Uint64(number)) = object.field(name) { *number } else { 0 };
    let text = |name| object.field(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Version {
        major: number("major"),
        minor: number("minor"),
        patch: number("patch"),
        pre: text("pre"),
        metadata: text("metadata"),
        original: original.to_owned(),
    }
}

fn of(args: &Args, index: usize) -> Result<Version> {
    match args.at(index) {
        Value::Struct(object) if object.ty.name == VERSION.name => Ok(read(object)),
        other => Error::call(format!("wrong type for value; expected *semver.Version; got {}", other.type_name())),
    }
}

fn raised(args: &Args, to: impl Fn(&Version) -> (u64, u64, u64)) -> Result<Value> {
    let (major, minor, patch) = to(&of(args, 0)?);
    let lead = if of(args, 0)?.original.starts_with('v') { "v" } else { "" };
    Ok(object(&version(&format!("{lead}{major}.{minor}.{patch}"))?))
}

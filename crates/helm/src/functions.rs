//! The functions that Helm's templates have: those of sprig, and Helm's own. What they do is what sprig 3.3 and Helm 3.22 do.

pub mod casts;
mod certificates;
mod ciphers;
mod dates;
mod dictionaries;
mod digests;
mod encodings;
pub mod expressions;
pub mod globs;
mod lists;
mod maths;
pub mod paths;
mod randomness;
mod reflection;
mod rendering;
mod strings;
mod urls;
mod versions;

use std::{collections::HashMap, sync::LazyLock};

pub use self::dates::time;
pub use self::rendering::{State, WARNING, without_no_value};
use crate::template::{Functions, builtin, function::Function};

/// In the order of who wins: sprig has a `slice` of its own.
const TABLES: &[&[Function]] = &[
    builtin::FUNCTIONS,
    certificates::FUNCTIONS,
    ciphers::FUNCTIONS,
    dates::FUNCTIONS,
    dictionaries::FUNCTIONS,
    digests::FUNCTIONS,
    encodings::FUNCTIONS,
    expressions::FUNCTIONS,
    lists::FUNCTIONS,
    maths::FUNCTIONS,
    paths::FUNCTIONS,
    randomness::FUNCTIONS,
    reflection::FUNCTIONS,
    strings::FUNCTIONS,
    urls::FUNCTIONS,
    versions::FUNCTIONS,
    rendering::FUNCTIONS,
];

static ALL: LazyLock<HashMap<&'static str, &'static Function>> =
    LazyLock::new(|| TABLES.iter().flat_map(|table| table.iter()).map(|function| (function.name, function)).collect());

/// All of them.
pub struct All;

impl Functions for All {
    fn find(&self, name: &str) -> Option<&'static Function> {
        ALL.get(name).copied()
    }
}

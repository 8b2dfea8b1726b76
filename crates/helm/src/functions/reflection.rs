//! What values are, and which of them to take.

use super::casts;
use crate::template::{comparison::deeply_equal, function::Function, value::Value};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "all", takes: "a*", run: |_, args| Ok((!args.rest(0).iter().any(casts::is_empty)).into()) },
    Function { name: "any", takes: "a*", run: |_, args| Ok((!args.rest(0).iter().all(casts::is_empty)).into()) },
    Function {
        name: "coalesce",
        takes: "a*",
        run: |_, args| Ok(args.rest(0).iter().find(|value| !casts::is_empty(value)).cloned().unwrap_or(Value::Nil)),
    },
    Function { name: "deepEqual", takes: "aa", run: |_, args| Ok(deeply_equal(args.at(0), args.at(1))?.into()) },
    Function {
        name: "default",
        takes: "aa*",
        run: |_, mut args| {
            let given = args.len() > 1 && !casts::is_empty(args.at(1));
            Ok(args.take(usize::from(given)))
        },
    },
    Function { name: "empty", takes: "a", run: |_, args| Ok(casts::is_empty(args.at(0)).into()) },
    Function { name: "kindIs", takes: "sa", run: |_, args| Ok((args.at(1).kind() == args.text(0)).into()) },
    Function { name: "kindOf", takes: "a", run: |_, args| Ok(Value::text(args.at(0).kind())) },
    Function {
        name: "ternary",
        takes: "aab",
        run: |_, mut args| {
            let which = usize::from(!args.truth(2));
            Ok(args.take(which))
        },
    },
    Function { name: "typeIs", takes: "sa", run: |_, args| Ok((args.at(1).type_name() == args.text(0)).into()) },
    Function {
        name: "typeIsLike",
        takes: "sa",
        run: |_, args| {
            let (name, wanted) = (args.at(1).type_name(), args.text(0));
            Ok((name == wanted || name.strip_prefix('*') == Some(wanted)).into())
        },
    },
    Function { name: "typeOf", takes: "a", run: |_, args| Ok(args.at(0).type_name().into()) },
];

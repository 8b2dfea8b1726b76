//! Expressions over the claims of a token, or over the user that was made of them.

use std::sync::{Arc, LazyLock};

use policy::cel::{Budget, Decl, List, Merge, Program, Type, Value as Cel};
use serde_json::Value;

/// What an expression speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    Claims,
    User,
}

static CLAIMS: LazyLock<Arc<Decl>> = LazyLock::new(|| Arc::new(Decl::map(Arc::new(Decl::any()), None)));
static USER: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let text = || Arc::new(Decl::string(None));
    let texts = || Arc::new(Decl::list(text(), None, Merge::Atomic));
    let fields: [(&str, Arc<Decl>); 4] =
        [("username", text()), ("uid", text()), ("groups", texts()), ("extra", Arc::new(Decl::map(texts(), None)))];
    Arc::new(Decl::object(fields.map(|(name, decl)| (name.into(), decl)), 2))
});

impl About {
    fn name(self) -> &'static str {
        match self {
            Self::Claims => "claims",
            Self::User => "user",
        }
    }

    fn decl(self) -> &'static Arc<Decl> {
        match self {
            Self::Claims => &CLAIMS,
            Self::User => &USER,
        }
    }
}

/// One that was compiled.
#[derive(Debug)]
pub(super) struct Expression {
    source: String,
    about: About,
    program: Program,
}

impl Expression {
    /// `rule`: it must be true or false.
    pub(super) fn compile(source: &str, about: About, rule: bool) -> Result<Self, String> {
        let variables = [(about.name(), Type::of(about.decl()))];
        let program = Program::compile(source, &variables).map_err(|error| format!("compilation failed: {error}"))?;
        if rule && !matches!(program.output(), Type::Bool) {
            return Err("must evaluate to bool".to_owned());
        }
        Ok(Self { source: source.to_owned(), about, program })
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates over claims or a user, within the budget of one call.
    pub(super) fn evaluate<T>(
        &self,
        over: &Value,
        take: impl FnOnce(&Cel<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let value = Cel::of(over, self.about.decl()).map_err(|fault| fault.to_string())?;
        let variables = [value];
        let outcome = self.program.evaluate(&variables, Budget::CALL);
        take(&outcome.result.map_err(|fault| fault.to_string())?)
    }

    /// Whether what it says is so.
    pub(super) fn holds(&self, over: &Value) -> Result<bool, String> {
        self.evaluate(over, |value| match value {
            Cel::Bool(holds) => Ok(*holds),
            _ => Err("validation expression must return a boolean".to_owned()),
        })
    }
}

/// The text that an expression made; none: it made something else.
pub(super) fn text(value: &Cel<'_>) -> Option<String> {
    match value {
        Cel::String(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// One text or a list of them; empty ones are as if they were not there.
pub(super) fn texts(value: &Cel<'_>) -> Result<Vec<String>, String> {
    let wrong = || "expression must return a string or a list of strings".to_owned();
    let list: Vec<String> = match value {
        Cel::Null => Vec::new(),
        Cel::String(text) => vec![text.as_str().to_owned()],
        Cel::List(List::Data(items, ..)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect::<Result<_, _>>()?
        }
        Cel::List(List::Made(items)) => {
            items.iter().map(|item| text(item).ok_or_else(wrong)).collect::<Result<_, _>>()?
        }
        _ => return Err(wrong()),
    };
    Ok(list.into_iter().filter(|text| !text.is_empty()).collect())
}

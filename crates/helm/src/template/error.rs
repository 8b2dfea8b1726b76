//! What can be wrong with a template, in Go's words.

/// Why a template cannot be read or carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    text: String,
    class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A function refused: no place is known yet.
    Call,
    /// The text is no template.
    Parse,
    /// It failed while it was carried out; the text says where.
    Run,
    /// One of this module's limits was passed, which Go does not have.
    Limit,
}

pub type Result<T, E = Box<Error>> = std::result::Result<T, E>;

impl Error {
    pub fn new(class: Class, text: impl Into<String>) -> Box<Self> {
        Box::new(Self { text: text.into(), class })
    }

    /// What a function says when it refuses.
    pub fn call<T>(text: impl Into<String>) -> Result<T> {
        Err(Self::new(Class::Call, text))
    }

    pub fn limit<T>(text: impl Into<String>) -> Result<T> {
        Err(Self::new(Class::Limit, text))
    }

    pub fn class(&self) -> Class {
        self.class
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same, told with where it happened. A limit stays one.
    pub fn within(&self, told: impl FnOnce(&str) -> String) -> Box<Self> {
        let class = if self.class == Class::Limit { Class::Limit } else { Class::Run };
        Self::new(class, told(&self.text))
    }

    /// The same, told with what refused: still without a place.
    pub fn of(&self, told: impl FnOnce(&str) -> String) -> Box<Self> {
        let class = if self.class == Class::Limit { Class::Limit } else { Class::Call };
        Self::new(class, told(&self.text))
    }
}

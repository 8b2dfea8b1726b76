//! What the claims of a token make of its holder (`plugin/authenticator/token/oidc`).

use policy::User;
use serde_json::{Value, json};

use super::expression::{Expression, text, texts};
use crate::authn::CREDENTIAL;

/// Where a name or the groups come from.
#[derive(Debug)]
pub(super) enum Source {
    Claim { claim: String, prefix: String },
    Expression(Expression),
}

/// What must be so for a token to be believed.
#[derive(Debug)]
pub(super) enum Rule {
    Claim { claim: String, value: String },
    Expression { expression: Expression, message: String },
}

#[derive(Debug)]
pub(super) struct Mapping {
    pub username: Source,
    pub groups: Option<Source>,
    pub uid: Option<Source>,
    pub extra: Vec<(String, Expression)>,
    pub claim_rules: Vec<Rule>,
    pub user_rules: Vec<(Expression, String)>,
}

impl Mapping {
    pub(super) fn user(&self, claims: &Value) -> Result<User, String> {
        let mut user = User::new(self.username(claims)?, self.groups(claims)?);
        user.uid = self.uid(claims)?;
        for (key, expression) in &self.extra {
            let failed = |why| format!("oidc: error evaluating extra claim expression: {}: {why}", expression.source());
            let values = expression.evaluate(claims, texts).map_err(failed)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            user.extra.insert(CREDENTIAL.to_owned(), vec![format!("JTI={id}")]);
        }
        for rule in &self.claim_rules {
            rule.check(claims)?;
        }
        self.check_user(&user)?;
        Ok(user)
    }

    fn username(&self, claims: &Value) -> Result<String, String> {
        match &self.username {
            Source::Expression(expression) => {
                let failed = |why: String| format!("oidc: error evaluating username claim expression: {why}");
                let name = expression.evaluate(claims, |value| {
                    text(value).ok_or_else(|| "username claim expression must return a string".to_owned())
                });
                let name = name.map_err(failed)?;
                if name.is_empty() {
                    return Err("oidc: empty username via CEL expression is not allowed".to_owned());
                }
                Ok(name)
            }
            Source::Claim { claim, prefix } => {
                let name = claims.get(claim).and_then(Value::as_str);
                let name = name.ok_or_else(|| format!("oidc: parse username claims {claim:?}: claim not present"))?;
                let verified = claims.get("email_verified").is_none_or(|verified| verified == &Value::Bool(true));
                if claim == "email" && !verified {
                    return Err("oidc: email not verified".to_owned());
                }
                Ok(format!("{prefix}{name}"))
            }
        }
    }

    fn groups(&self, claims: &Value) -> Result<Vec<String>, String> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Source::Expression(expression)) => expression
                .evaluate(claims, texts)
                .map_err(|why| format!("oidc: error evaluating group claim expression: {why}")),
            Some(Source::Claim { claim, prefix }) => {
                let list = match claims.get(claim) {
                    None | Some(Value::Null) => return Ok(Vec::new()),
                    Some(Value::String(one)) => Some(vec![one.as_str()]),
                    Some(Value::Array(many)) => many.iter().map(Value::as_str).collect::<Option<Vec<_>>>(),
                    Some(_) => None,
                };
                let list = list.ok_or_else(|| format!("oidc: parse groups claim {claim:?}: not a list of strings"))?;
                Ok(list.into_iter().map(|group| format!("{prefix}{group}")).collect())
            }
        }
    }

    fn uid(&self, claims: &Value) -> Result<String, String> {
        match &self.uid {
            None => Ok(String::new()),
            Some(Source::Claim { claim, .. }) => {
                let uid = claims.get(claim).and_then(Value::as_str).map(str::to_owned);
                uid.ok_or_else(|| format!("oidc: parse uid claim {claim:?}: claim not present"))
            }
            Some(Source::Expression(expression)) => {
                let take = |value: &policy::cel::Value<'_>| {
                    text(value).ok_or_else(|| "uid claim expression must return a string".to_owned())
                };
                expression
                    .evaluate(claims, take)
                    .map_err(|why| format!("oidc: error evaluating uid claim expression: {why}"))
            }
        }
    }

    fn check_user(&self, user: &User) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        // The group of all who have logged in is added later, upstream.
        let groups: Vec<&String> = user.groups.iter().filter(|group| *group != policy::user::AUTHENTICATED).collect();
        let over = json!({"username": user.name, "uid": user.uid, "groups": groups, "extra": user.extra});
        for (expression, message) in &self.user_rules {
            check(expression, &over, message)
                .map_err(|why| format!("oidc: error evaluating user info validation rule: {why}"))?;
        }
        Ok(())
    }
}

fn check(expression: &Expression, over: &Value, message: &str) -> Result<(), String> {
    match expression.holds(over)? {
        true => Ok(()),
        false => Err(format!("validation expression '{}' failed: {message}", expression.source())),
    }
}

impl Rule {
    fn check(&self, claims: &Value) -> Result<(), String> {
        match self {
            Self::Claim { claim, value } => match claims.get(claim) {
                None => Err(format!("oidc: required claim {claim} not present in ID token")),
                Some(Value::String(found)) if found == value => Ok(()),
                Some(Value::String(found)) => {
                    Err(format!("oidc: required claim {claim} value does not match. Got = {found}, want = {value}"))
                }
                Some(_) => Err(format!("oidc: parse claim {claim}: not a string")),
            },
            Self::Expression { expression, message } => check(expression, claims, message)
                .map_err(|why| format!("oidc: error evaluating claim validation expression: {why}")),
        }
    }
}

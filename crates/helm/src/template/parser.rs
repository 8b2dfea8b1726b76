//! Reads a template: the grammar of `text/template/parse`, with its errors.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    DEEP_MAX, Functions,
    error::{Class, Error, Result},
    lexer::{Kind, Token, tokens},
    node::{Branch, Callee, Command, Invocation, Node, Number, Operand, Pipe, Term, is_blank},
    text::{float, quoted, unquoted, whole},
};

/// The definitions in one text by name; the text itself is one of them.
pub type Trees = BTreeMap<String, Vec<Node>>;

/// Reads `text`, which errors name `name`.
pub fn parse(name: &str, text: &str, functions: &dyn Functions) -> Result<Trees> {
    let (tokens, lexical_error) = tokens(text);
    let mut parser = Parser {
        name,
        functions,
        tokens,
        lexical_error,
        at: 0,
        furthest: 0,
        action_line: 0,
        deep: 0,
        ranges: 0,
        variables: vec!["$".into()],
        trees: Trees::new(),
    };
    let root = parser.document()?;
    parser.add(name.to_owned(), root)?;
    Ok(parser.trees)
}

/// How a list of nodes ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    End,
    Else,
}

impl Ended {
    fn shown(self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

struct Parser<'p> {
    name: &'p str,
    functions: &'p dyn Functions,
    tokens: Vec<Token<'p>>,
    /// What the last token is, if that is an error.
    lexical_error: String,
    at: usize,
    /// The last token that was looked at: errors are told with its line.
    furthest: usize,
    action_line: usize,
    deep: usize,
    ranges: usize,
    variables: Vec<Box<str>>,
    trees: Trees,
}

impl<'p> Parser<'p> {
    fn fail<T>(&self, what: impl AsRef<str>) -> Result<T> {
        let line = self.tokens.get(self.furthest).map_or(1, |token| token.line);
        Err(Error::new(Class::Parse, format!("template: {}:{line}: {}", self.name, what.as_ref())))
    }

    fn unexpected<T>(&self, token: &Token<'_>, context: &str) -> Result<T> {
        if token.kind == Kind::Error {
            let mut extra = String::new();
            if self.action_line != 0 && self.action_line != token.line {
                let action = if self.lexical_error.ends_with(" action") { "" } else { " in action" };
                extra = format!("{action} started at {}:{}", self.name, self.action_line);
            }
            return self.fail(format!("{}{extra}", self.lexical_error));
        }
        self.fail(format!("unexpected {} in {context}", token.shown()))
    }

    /// The next token; the last one (the end, or an error) stays.
    fn peek(&mut self) -> Token<'p> {
        let last = self.tokens.len() - 1;
        let at = self.at.min(last);
        self.furthest = self.furthest.max(at);
        self.tokens[at]
    }

    fn next(&mut self) -> Token<'p> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn skip_spaces(&mut self) {
        while self.peek().kind == Kind::Space {
            self.at += 1;
        }
    }

    fn next_word(&mut self) -> Token<'p> {
        self.skip_spaces();
        self.next()
    }

    fn peek_word(&mut self) -> Token<'p> {
        self.skip_spaces();
        self.peek()
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<Token<'p>> {
        let token = self.next_word();
        if token.kind == kind { Ok(token) } else { self.unexpected(&token, context) }
    }

    /// One level deeper, as long as that is allowed.
    fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.deep >= DEEP_MAX {
            return Err(Error::new(Class::Limit, format!("template: {}: more than {DEEP_MAX} levels deep", self.name)));
        }
        self.deep += 1;
        let done = super::on_enough_stack(|| inside(self));
        self.deep -= 1;
        done
    }

    fn add(&mut self, name: String, nodes: Vec<Node>) -> Result<()> {
        match self.trees.get(&name) {
            Some(known) if !is_blank(known) => {
                if is_blank(&nodes) {
                    return Ok(());
                }
                self.fail(format!("template: multiple definition of template {}", quoted(&name)))
            }
            _ => {
                self.trees.insert(name, nodes);
                Ok(())
            }
        }
    }

    fn document(&mut self) -> Result<Vec<Node>> {
        let mut root = Vec::new();
        loop {
            let token = self.peek();
            if token.kind == Kind::End {
                return Ok(root);
            }
            if token.kind == Kind::LeftDelimiter {
                let back = self.at;
                self.next();
                if self.next_word().is("define") {
                    self.definition()?;
                    continue;
                }
                self.at = back;
            }
            match self.text_or_action()? {
                Ok(node) => root.push(node),
                Err(ended) => return self.fail(format!("unexpected {}", ended.shown())),
            }
        }
    }

    /// What a definition declares is its own.
    fn apart<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let ranges = std::mem::take(&mut self.ranges);
        let action_line = std::mem::take(&mut self.action_line);
        let done = inside(self);
        (self.variables, self.ranges, self.action_line) = (variables, ranges, action_line);
        done
    }

    fn definition(&mut self) -> Result<()> {
        const CONTEXT: &str = "define clause";
        let token = self.next_word();
        let name = self.template_name(&token, CONTEXT)?;
        self.expect(Kind::RightDelimiter, CONTEXT)?;
        let (nodes, ended) = self.apart(Self::list)?;
        if ended != Ended::End {
            return self.fail(format!("unexpected {} in {CONTEXT}", ended.shown()));
        }
        self.add(name, nodes)
    }

    fn template_name(&mut self, token: &Token<'_>, context: &str) -> Result<String> {
        match token.kind {
            Kind::String | Kind::RawString => self.unquote(token.text),
            _ => self.unexpected(token, context),
        }
    }

    fn unquote(&self, text: &str) -> Result<String> {
        unquoted(text).map_or_else(|| self.fail("invalid syntax"), Ok)
    }

    fn list(&mut self) -> Result<(Vec<Node>, Ended)> {
        let mut nodes = Vec::new();
        while self.peek_word().kind != Kind::End {
            match self.text_or_action()? {
                Ok(node) => nodes.push(node),
                Err(ended) => return Ok((nodes, ended)),
            }
        }
        self.fail("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Result<Result<Node, Ended>> {
        let token = self.next_word();
        match token.kind {
            Kind::Text => {
                let span = token.place..token.place + token.text.len();
                Ok(Ok(Node::Text { span, blank: token.text.trim().is_empty() }))
            }
            Kind::LeftDelimiter => {
                self.action_line = token.line;
                let done = self.action();
                if done.is_ok() {
                    self.action_line = 0;
                }
                done
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    fn action(&mut self) -> Result<Result<Node, Ended>> {
        let back = self.at;
        let token = self.next_word();
        if token.kind == Kind::Keyword {
            let node = match token.text {
                "block" => self.block()?,
                "break" | "continue" => self.leave(token.text)?,
                "else" => {
                    let next = self.peek_word();
                    if !next.is("if") && !next.is("with") {
                        self.expect(Kind::RightDelimiter, "else")?;
                    }
                    return Ok(Err(Ended::Else));
                }
                "end" => {
                    self.expect(Kind::RightDelimiter, "end")?;
                    return Ok(Err(Ended::End));
                }
                "if" => Node::If(self.control("if")?),
                "range" => Node::Range(self.control("range")?),
                "with" => Node::With(self.control("with")?),
                "template" => self.invocation()?,
                _ => {
                    self.at = back;
                    Node::Action(self.pipeline("command", Kind::RightDelimiter)?)
                }
            };
            return Ok(Ok(node));
        }
        self.at = back;
        Ok(Ok(Node::Action(self.pipeline("command", Kind::RightDelimiter)?)))
    }

    fn leave(&mut self, word: &str) -> Result<Node> {
        let token = self.next_word();
        if token.kind != Kind::RightDelimiter {
            return self.unexpected(&token, &format!("{{{{{word}}}}}"));
        }
        if self.ranges == 0 {
            return self.fail(format!("{{{{{word}}}}} outside {{{{range}}}}"));
        }
        Ok(if word == "break" { Node::Break } else { Node::Continue })
    }

    fn control(&mut self, context: &'static str) -> Result<Branch> {
        let known = self.variables.len();
        let branch = self.deeper(|parser| parser.branch(context));
        self.variables.truncate(known);
        branch
    }

    fn branch(&mut self, context: &'static str) -> Result<Branch> {
        let pipe = self.pipeline(context, Kind::RightDelimiter)?;
        let ranges = usize::from(context == "range");
        self.ranges += ranges;
        let (body, ended) = self.list()?;
        self.ranges -= ranges;
        let mut otherwise = None;
        if ended == Ended::Else {
            // `{{else if}}` is an `if` in the other branch that shares its end.
            let next = self.peek();
            if context != "range" && next.is(context) {
                self.next();
                let branch = self.control(context)?;
                otherwise = Some(vec![if context == "if" { Node::If(branch) } else { Node::With(branch) }]);
            } else {
                let (nodes, ended) = self.list()?;
                if ended != Ended::End {
                    return self.fail(format!("expected end; found {}", ended.shown()));
                }
                otherwise = Some(nodes);
            }
        }
        Ok(Branch { pipe, body, otherwise })
    }

    fn block(&mut self) -> Result<Node> {
        const CONTEXT: &str = "block clause";
        let token = self.next_word();
        let name = self.template_name(&token, CONTEXT)?;
        let pipe = self.pipeline(CONTEXT, Kind::RightDelimiter)?;
        let (nodes, ended) = self.deeper(|parser| parser.apart(Self::list))?;
        if ended != Ended::End {
            return self.fail(format!("unexpected {} in {CONTEXT}", ended.shown()));
        }
        self.add(name.clone(), nodes)?;
        Ok(Node::Template(Invocation { place: token.place, name, pipe: Some(pipe) }))
    }

    fn invocation(&mut self) -> Result<Node> {
        const CONTEXT: &str = "template clause";
        let token = self.next_word();
        let name = self.template_name(&token, CONTEXT)?;
        let mut pipe = None;
        if self.peek_word().kind == Kind::RightDelimiter {
            self.next();
        } else {
            pipe = Some(self.pipeline(CONTEXT, Kind::RightDelimiter)?);
        }
        Ok(Node::Template(Invocation { place: token.place, name, pipe }))
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipe> {
        let place = self.peek_word().place;
        let mut pipe = Pipe { place, assigns: false, variables: Vec::new(), commands: Vec::with_capacity(1) };
        self.declarations(&mut pipe, context)?;
        loop {
            let back = self.at;
            let token = self.next_word();
            match token.kind {
                kind if kind == end => break,
                Kind::Bool
                | Kind::CharConstant
                | Kind::Complex
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen => {
                    self.at = back;
                    pipe.commands.push(self.command()?);
                }
                _ => return self.unexpected(&token, context),
            }
        }
        self.check(&pipe, context)?;
        Ok(pipe)
    }

    /// `$x :=`, `$x =`, and for ranges `$i, $x :=`.
    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Result<()> {
        loop {
            let variable = self.peek_word();
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            let back = self.at;
            self.next();
            let next = self.peek_word();
            let comma = next.kind == Kind::Char && next.text == ",";
            if !comma && !matches!(next.kind, Kind::Assign | Kind::Declare) {
                self.at = back;
                return Ok(());
            }
            self.next();
            pipe.variables.push(variable.text.into());
            self.variables.push(variable.text.into());
            if !comma {
                pipe.assigns = next.kind == Kind::Assign;
                return Ok(());
            }
            if context != "range" || pipe.variables.len() > 1 {
                return self.fail(format!("too many declarations in {context}"));
            }
            if !matches!(self.peek_word().kind, Kind::Variable | Kind::RightDelimiter | Kind::RightParen) {
                return self.fail("range can only initialize variables");
            }
        }
    }

    fn check(&self, pipe: &Pipe, context: &str) -> Result<()> {
        if pipe.commands.is_empty() {
            return self.fail(format!("missing value for {context}"));
        }
        for (index, command) in pipe.commands.iter().enumerate().skip(1) {
            let first = command.words.first().map(|word| &word.term);
            if let Some(Term::Bool(_) | Term::Dot | Term::Nil | Term::Number(_) | Term::Text { .. }) = first {
                return self.fail(format!("non executable command in pipeline stage {}", index + 1));
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Result<Command> {
        let place = self.peek_word().place;
        // Most have one word: four are what a vector makes room for of itself.
        let mut words = Vec::with_capacity(1);
        loop {
            self.skip_spaces();
            if let Some(operand) = self.operand()? {
                words.push(operand);
            }
            let token = self.peek();
            match token.kind {
                Kind::Space => {
                    self.next();
                }
                Kind::RightDelimiter | Kind::RightParen => break,
                Kind::Pipe => {
                    self.next();
                    break;
                }
                _ => return self.unexpected(&token, "operand"),
            }
        }
        if words.is_empty() {
            return self.fail("empty command");
        }
        Ok(Command { place, words })
    }

    fn operand(&mut self) -> Result<Option<Operand>> {
        let Some(mut operand) = self.term()? else { return Ok(None) };
        let place = self.peek().place;
        let mut names = String::new();
        while self.peek().kind == Kind::Field {
            names.push_str(self.next().text);
        }
        if names.is_empty() {
            return Ok(Some(operand));
        }
        match &mut operand.term {
            Term::Field(first) | Term::Variable(first) => {
                *first = format!("{first}{names}").into();
                operand.place = place;
            }
            Term::Bool(_) | Term::Text { .. } | Term::Number(_) | Term::Nil | Term::Dot => {
                return self.fail(format!("unexpected . after term {}", quoted(&operand.to_string())));
            }
            _ => {
                let names = names.trim_start_matches('.').into();
                operand = Operand { place, term: Term::Chain(Box::new(operand), names) };
            }
        }
        Ok(Some(operand))
    }

    fn term(&mut self) -> Result<Option<Operand>> {
        let back = self.at;
        let token = self.next_word();
        let place = token.place;
        let term = match token.kind {
            Kind::Identifier => Term::Function(self.callee(token.text)?),
            Kind::Dot => Term::Dot,
            Kind::Nil => Term::Nil,
            Kind::Variable => {
                if !self.variables.iter().any(|known| **known == *token.text) {
                    return self.fail(format!("undefined variable {}", quoted(token.text)));
                }
                Term::Variable(token.text.into())
            }
            Kind::Field => Term::Field(token.text.trim_start_matches('.').into()),
            Kind::Bool => Term::Bool(token.text == "true"),
            Kind::CharConstant | Kind::Complex | Kind::Number => Term::Number(self.number(&token)?),
            Kind::LeftParen => {
                let pipe = self.deeper(|parser| parser.pipeline("parenthesized pipeline", Kind::RightParen))?;
                Term::Pipe(pipe)
            }
            Kind::String | Kind::RawString => {
                let text = self.unquote(token.text)?;
                Term::Text { quoted: token.text.into(), text: Arc::from(text) }
            }
            _ => {
                self.at = back;
                return Ok(None);
            }
        };
        Ok(Some(Operand { place, term }))
    }

    fn callee(&self, name: &str) -> Result<Callee> {
        match name {
            "and" => Ok(Callee::And),
            "or" => Ok(Callee::Or),
            _ => match self.functions.find(name) {
                Some(function) => Ok(Callee::Known(function)),
                None => self.fail(format!("function {} not defined", quoted(name))),
            },
        }
    }

    fn number(&self, token: &Token<'_>) -> Result<Number> {
        let text = token.text;
        let mut number = Number { text: text.into(), int: None, uint: None, float: None };
        if token.kind == Kind::CharConstant {
            let Some(text) = unquoted(text) else { return self.fail("invalid syntax") };
            let mut characters = text.chars();
            let (Some(c), None) = (characters.next(), characters.next()) else {
                return self.fail(format!("malformed character constant: {}", token.text));
            };
            let code = u32::from(c);
            number.int = Some(i64::from(code));
            number.uint = Some(u64::from(code));
            number.float = Some(f64::from(code));
            return Ok(number);
        }
        if token.kind == Kind::Complex || text.ends_with('i') {
            return self.fail(format!("complex numbers are not known here: {}", quoted(text)));
        }
        if let Some(whole) = whole(text) {
            number.int = i64::try_from(whole).ok();
            number.uint = u64::try_from(whole).ok();
        }
        #[expect(clippy::cast_precision_loss, reason = "as Go converts constants")]
        if let Some(int) = number.int {
            number.float = Some(int as f64);
        } else if let Some(uint) = number.uint {
            number.float = Some(uint as f64);
        } else if let Some(float) = float(text) {
            if !text.contains(['.', 'e', 'E', 'p', 'P']) {
                return self.fail(format!("integer overflow: {}", quoted(text)));
            }
            number.float = Some(float);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "compared with what it was")]
            {
                number.int = Some(float as i64).filter(|int| *int as f64 == float);
                number.uint = Some(float as u64).filter(|uint| *uint as f64 == float);
            }
        }
        if number.float.is_none() {
            return self.fail(format!("illegal number syntax: {}", quoted(text)));
        }
        Ok(number)
    }
}

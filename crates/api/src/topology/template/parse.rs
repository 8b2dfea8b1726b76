//! Reads a template into nodes.

use serde_json::Value;

/// Blocks and parentheses inside one another.
const DEPTH_MAX: usize = 100;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { names: Vec<String>, list: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands, each given what the one before it made.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// Variables that take the value.
    pub declares: Vec<String>,
    /// They are there already.
    pub assigns: bool,
    pub commands: Vec<Vec<Term>>,
}

/// An operand, and the fields that are taken of it.
#[derive(Debug)]
pub(super) struct Term {
    pub operand: Operand,
    pub fields: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Operand {
    Dot,
    /// With its `$`.
    Variable(String),
    Literal(Value),
    Function(String),
    Pipeline(Box<Pipeline>),
}

type Result<T> = std::result::Result<T, String>;

/// A piece of the template: text, or what is between `{{` and `}}`.
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// `.a.b`, or `.` alone.
    Fields(Vec<String>),
    /// The same right behind what it is taken of.
    Attached(Vec<String>),
    Variable(String),
    Word(String),
    Literal(Value),
    Open,
    Close,
    Pipe,
    Declare,
    Assign,
    Comma,
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>> {
    let pieces = pieces(text)?;
    let mut reader = Reader { pieces: pieces.into_iter(), depth: 0 };
    let (nodes, end) = reader.block()?;
    match end {
        End::Text => Ok(nodes),
        End::Block => Err("unexpected {{end}}".to_owned()),
        End::Else(_) => Err("unexpected {{else}}".to_owned()),
    }
}

/// Adds the names of all functions that nodes call.
pub(super) fn functions<'a>(nodes: &'a [Node], names: &mut Vec<&'a str>) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Action(pipeline) => called(pipeline, names),
            Node::If { condition: pipeline, then, otherwise }
            | Node::With { value: pipeline, then, otherwise }
            | Node::Range { list: pipeline, then, otherwise, .. } => {
                called(pipeline, names);
                functions(then, names);
                functions(otherwise, names);
            }
        }
    }
}

fn called<'a>(pipeline: &'a Pipeline, names: &mut Vec<&'a str>) {
    for term in pipeline.commands.iter().flatten() {
        match &term.operand {
            Operand::Function(name) => names.push(name),
            Operand::Pipeline(inner) => called(inner, names),
            _ => {}
        }
    }
}

fn pieces(mut text: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut trim = false;
    while let Some((before, rest)) = text.split_once("{{") {
        let (trims_before, rest) = match rest.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace)) {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let before = if trim { before.trim_start() } else { before };
        let before = if trims_before { before.trim_end() } else { before };
        pieces.push(Piece::Text(before.to_owned()));
        let (tokens, trims_after, rest) = action(rest)?;
        if let Some(tokens) = tokens {
            pieces.push(Piece::Action(tokens));
        }
        trim = trims_after;
        text = rest;
    }
    pieces.push(Piece::Text(if trim { text.trim_start() } else { text }.to_owned()));
    Ok(pieces)
}

/// Tokens up to `}}` (none: a comment), whether it trims what follows, and what follows.
fn action(text: &str) -> Result<(Option<Vec<Token>>, bool, &str)> {
    let mut rest = text.trim_start();
    if let Some(comment) = rest.strip_prefix("/*") {
        let (_, after) = comment.split_once("*/").ok_or("unclosed comment")?;
        rest = after.trim_start();
        let (trims, rest) = close(rest).ok_or("comment ends before closing delimiter")?;
        return Ok((None, trims, rest));
    }
    let mut tokens = Vec::new();
    loop {
        let trimmed = rest.trim_start();
        // A minus before the end is one that trims, if there is a space before it.
        if let Some((trims, rest)) = close(trimmed) {
            return Ok((Some(tokens), trims, rest));
        }
        let (mut token, after) = token(trimmed)?;
        if trimmed.len() == rest.len()
            && let Token::Fields(fields) = &mut token
            && matches!(tokens.last(), Some(Token::Variable(_) | Token::Close))
        {
            token = Token::Attached(std::mem::take(fields));
        }
        tokens.push(token);
        rest = after;
    }
}

fn close(text: &str) -> Option<(bool, &str)> {
    match text.strip_prefix("-}}") {
        Some(rest) => Some((true, rest)),
        None => text.strip_prefix("}}").map(|rest| (false, rest)),
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn name(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()))
}

/// `.a.b`: the names, and the rest; a dot alone has none.
fn fields(text: &str) -> (Vec<String>, &str) {
    let mut fields = Vec::new();
    let mut at = text;
    while let Some(rest) = at.strip_prefix('.') {
        let (field, after) = name(rest);
        if field.is_empty() {
            break;
        }
        fields.push(field.to_owned());
        at = after;
    }
    if fields.is_empty() { (fields, at.strip_prefix('.').unwrap_or(at)) } else { (fields, at) }
}

fn token(text: &str) -> Result<(Token, &str)> {
    for (sign, token) in [
        ("(", Token::Open),
        (")", Token::Close),
        ("|", Token::Pipe),
        (":=", Token::Declare),
        ("=", Token::Assign),
        (",", Token::Comma),
    ] {
        if let Some(rest) = text.strip_prefix(sign) {
            return Ok((token, rest));
        }
    }
    let first = text.chars().next().ok_or("unclosed action")?;
    match first {
        '.' => {
            let (fields, rest) = fields(text);
            Ok((Token::Fields(fields), rest))
        }
        '$' => {
            let (name, rest) = name(&text[1..]);
            Ok((Token::Variable(format!("${name}")), rest))
        }
        '"' => quoted(text),
        '`' => {
            let (raw, rest) = text[1..].split_once('`').ok_or("unterminated raw quoted string")?;
            Ok((Token::Literal(raw.into()), rest))
        }
        c if c.is_ascii_digit() || c == '-' || c == '+' => {
            let end = text.find(|c: char| !(is_name(c) || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
            let (number, rest) = text.split_at(end);
            let value = number.trim_start_matches('+');
            let value = value.parse::<i64>().map(Value::from).or_else(|_| value.parse::<f64>().map(Value::from));
            Ok((Token::Literal(value.map_err(|_| format!("bad number syntax: {number:?}"))?), rest))
        }
        c if is_name(c) => {
            let (word, rest) = name(text);
            Ok((
                match word {
                    "true" => Token::Literal(true.into()),
                    "false" => Token::Literal(false.into()),
                    "nil" => Token::Literal(Value::Null),
                    _ => Token::Word(word.to_owned()),
                },
                rest,
            ))
        }
        other => Err(format!("unexpected {other:?} in an action")),
    }
}

fn quoted(text: &str) -> Result<(Token, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Literal(value.into()), &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c @ ('"' | '\\' | '\''))) => value.push(c),
                _ => return Err("an escape that is not known in a string".to_owned()),
            },
            '\n' => break,
            c => value.push(c),
        }
    }
    Err("unterminated quoted string".to_owned())
}

enum End {
    Text,
    Block,
    /// With what stands after `else`.
    Else(Vec<Token>),
}

struct Reader {
    pieces: std::vec::IntoIter<Piece>,
    depth: usize,
}

impl Reader {
    fn block(&mut self) -> Result<(Vec<Node>, End)> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} blocks inside one another"));
        }
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    if !text.is_empty() {
                        nodes.push(Node::Text(text));
                    }
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let word = match tokens.first() {
                Some(Token::Word(word)) => word.clone(),
                _ => String::new(),
            };
            let rest = tokens.get(1..).unwrap_or_default().to_vec();
            match word.as_str() {
                "end" => {
                    self.depth -= 1;
                    return Ok((nodes, End::Block));
                }
                "else" => {
                    self.depth -= 1;
                    return Ok((nodes, End::Else(rest)));
                }
                "if" | "with" | "range" => nodes.push(self.control(&word, &rest)?),
                "define" | "template" | "block" | "break" | "continue" => {
                    return Err(format!("{word} is not known here"));
                }
                _ => nodes.push(Node::Action(pipeline(&tokens)?)),
            }
        }
        self.depth -= 1;
        Ok((nodes, End::Text))
    }

    fn control(&mut self, word: &str, tokens: &[Token]) -> Result<Node> {
        let mut head = pipeline(tokens)?;
        let (then, end) = self.block()?;
        let otherwise = match end {
            End::Text => return Err(format!("{word} has no end")),
            End::Block => Vec::new(),
            End::Else(rest) => match rest.split_first() {
                None => {
                    let (nodes, end) = self.block()?;
                    if !matches!(end, End::Block) {
                        return Err(format!("{word} has no end"));
                    }
                    nodes
                }
                Some((Token::Word(word), rest)) if word == "if" || word == "with" => vec![self.control(word, rest)?],
                Some(_) => return Err("unexpected tokens after else".to_owned()),
            },
        };
        Ok(match word {
            "if" => Node::If { condition: head, then, otherwise },
            "with" => Node::With { value: head, then, otherwise },
            _ => Node::Range { names: std::mem::take(&mut head.declares), list: head, then, otherwise },
        })
    }
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline> {
    let mut tokens = tokens.iter().cloned().peekable();
    let pipeline = read(&mut tokens, false, 0)?;
    match tokens.next() {
        None => Ok(pipeline),
        Some(_) => Err("unexpected tokens at the end of an action".to_owned()),
    }
}

fn read(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = Token> + Clone>,
    nested: bool,
    depth: usize,
) -> Result<Pipeline> {
    if depth > DEPTH_MAX {
        return Err(format!("more than {DEPTH_MAX} parentheses inside one another"));
    }
    let mut pipeline = declared(tokens);
    let mut command = Vec::new();
    loop {
        match tokens.peek() {
            None => break,
            Some(Token::Close) if nested => break,
            Some(Token::Pipe) => {
                tokens.next();
                if command.is_empty() {
                    return Err("missing value for command".to_owned());
                }
                pipeline.commands.push(std::mem::take(&mut command));
            }
            Some(_) => command.push(term(tokens, depth)?),
        }
    }
    if command.is_empty() {
        return Err("missing value for command".to_owned());
    }
    pipeline.commands.push(command);
    Ok(pipeline)
}

/// `$a, $b :=` or `$a =` at the start.
fn declared(tokens: &mut std::iter::Peekable<impl Iterator<Item = Token> + Clone>) -> Pipeline {
    let mut ahead = tokens.clone();
    let mut names = Vec::new();
    while let Some(Token::Variable(name)) = ahead.next() {
        names.push(name);
        match ahead.next() {
            Some(Token::Comma) => {}
            Some(sign @ (Token::Declare | Token::Assign)) => {
                for _ in 0..names.len() * 2 {
                    tokens.next();
                }
                return Pipeline { declares: names, assigns: sign == Token::Assign, commands: Vec::new() };
            }
            _ => break,
        }
    }
    Pipeline::default()
}

fn term(tokens: &mut std::iter::Peekable<impl Iterator<Item = Token> + Clone>, depth: usize) -> Result<Term> {
    let next = tokens.next().ok_or("missing value for command")?;
    let operand = match next {
        Token::Fields(fields) => return Ok(Term { operand: Operand::Dot, fields }),
        Token::Variable(name) => Operand::Variable(name),
        Token::Literal(value) => Operand::Literal(value),
        Token::Word(name) => Operand::Function(name),
        Token::Open => {
            let inner = read(tokens, true, depth + 1)?;
            match tokens.next() {
                Some(Token::Close) => Operand::Pipeline(Box::new(inner)),
                _ => return Err("unclosed left paren".to_owned()),
            }
        }
        other => return Err(format!("unexpected {other:?}")),
    };
    let fields = match tokens.peek() {
        Some(Token::Attached(fields)) => fields.clone(),
        _ => return Ok(Term { operand, fields: Vec::new() }),
    };
    tokens.next();
    Ok(Term { operand, fields })
}

//! The text of a template as tokens (`text/template/parse/lex.go` says which there are).

use super::text::quoted;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Error,
    Bool,
    Char,
    CharConstant,
    Complex,
    Assign,
    Declare,
    End,
    Field,
    Identifier,
    LeftDelimiter,
    LeftParen,
    Number,
    Pipe,
    RawString,
    RightDelimiter,
    RightParen,
    Space,
    String,
    Text,
    Variable,
    Dot,
    Nil,
    Keyword,
}

#[derive(Clone, Copy, Debug)]
pub struct Token<'t> {
    pub kind: Kind,
    pub place: usize,
    pub line: usize,
    /// Nothing for an error: what it is stands beside the tokens.
    pub text: &'t str,
}

impl Token<'_> {
    /// As Go shows it in an error.
    pub fn shown(&self) -> String {
        match self.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Keyword | Kind::Nil | Kind::Dot => format!("<{}>", self.text),
            _ if self.text.len() > 10 => {
                let start: String = self.text.chars().take(10).collect();
                format!("{}...", quoted(&start))
            }
            _ => quoted(self.text),
        }
    }

    pub fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Keyword && self.text == keyword
    }
}

const KEYWORDS: &[&str] = &["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];
/// Tokens that room is made for before there are any.
const ROOM_MAX: usize = 16_384;
const SPACES: &[char] = &[' ', '\t', '\r', '\n'];

fn is_space(c: char) -> bool {
    SPACES.contains(&c)
}

/// What a name may consist of.
fn is_word(c: char) -> bool {
    c == '_' || c.is_alphabetic() || is_digit(c)
}

/// A decimal digit of any script; Rust's `is_numeric` has fractions and letters for numbers too.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
        || (!c.is_ascii() && c.is_numeric() && !c.is_alphabetic() && c.to_digit(10).is_none() && decimal(c))
}

/// Blocks of ten digits, which start at such offsets in the scripts that have them.
fn decimal(c: char) -> bool {
    const ZEROS: &[u32] = &[
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
        0x1040, 0x1090, 0x17e0, 0x1810, 0xff10,
    ];
    ZEROS.iter().any(|zero| (*zero..zero + 10).contains(&u32::from(c)))
}

/// All tokens, the last is the end or an error; and what the error is.
pub fn tokens(text: &str) -> (Vec<Token<'_>>, String) {
    // Room for what most texts have, so that it need not grow; never much for one of delimiters alone.
    let room = (8 * text.matches("{{").count() + 2).min(ROOM_MAX);
    let tokens = Vec::with_capacity(room);
    let mut lexer = Lexer { text, start: 0, at: 0, line: 1, counted: 0, parens: 0, tokens };
    if let Err(what) = lexer.run() {
        let (line, place) = (lexer.line_at(lexer.start), lexer.start);
        lexer.tokens.push(Token { kind: Kind::Error, place, line, text: "" });
        return (lexer.tokens, what);
    }
    (lexer.tokens, String::new())
}

struct Lexer<'t> {
    text: &'t str,
    start: usize,
    at: usize,
    line: usize,
    /// Up to where lines are counted.
    counted: usize,
    parens: usize,
    tokens: Vec<Token<'t>>,
}

impl<'t> Lexer<'t> {
    fn left(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.left().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip(&mut self, accepts: impl Fn(char) -> bool) {
        self.at = self.left().find(|c| !accepts(c)).map_or(self.text.len(), |skipped| self.at + skipped);
    }

    fn line_at(&mut self, place: usize) -> usize {
        if place > self.counted {
            self.line += self.text[self.counted..place].matches('\n').count();
            self.counted = place;
        }
        self.line
    }

    fn emit(&mut self, kind: Kind) {
        let line = self.line_at(self.start);
        let text = &self.text[self.start..self.at];
        self.tokens.push(Token { kind, place: self.start, line, text });
        self.start = self.at;
    }

    fn ignore(&mut self) {
        self.start = self.at;
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(open) = self.left().find("{{") {
            let trims = starts_trimmed(&self.text[self.at + open + 2..]);
            let kept = if trims { self.left()[..open].trim_end_matches(SPACES).len() } else { open };
            let delimiter = self.at + open;
            self.at += kept;
            if self.at > self.start {
                self.emit(Kind::Text);
            }
            self.at = delimiter;
            self.ignore();
            self.at += 2;
            let marker = if trims { 2 } else { 0 };
            if self.text[self.at + marker..].starts_with("/*") {
                self.at += marker;
                self.ignore();
                self.comment()?;
                continue;
            }
            self.emit(Kind::LeftDelimiter);
            self.at += marker;
            self.ignore();
            self.parens = 0;
            self.action()?;
        }
        self.at = self.text.len();
        if self.at > self.start {
            self.emit(Kind::Text);
        }
        self.emit(Kind::End);
        Ok(())
    }

    /// Whether the action ends here, and whether the white space behind it goes.
    fn right_delimiter(&self) -> Option<bool> {
        let left = self.left();
        if ends_trimmed(left) { Some(true) } else { left.starts_with("}}").then_some(false) }
    }

    fn comment(&mut self) -> Result<(), String> {
        let Some(end) = self.left()[2..].find("*/") else { return Err("unclosed comment".to_owned()) };
        self.at += end + 4;
        let Some(trims) = self.right_delimiter() else {
            return Err("comment ends before closing delimiter".to_owned());
        };
        self.at += if trims { 4 } else { 2 };
        if trims {
            self.skip(is_space);
        }
        self.ignore();
        Ok(())
    }

    fn action(&mut self) -> Result<(), String> {
        loop {
            if let Some(trims) = self.right_delimiter() {
                if self.parens > 0 {
                    return Err("unclosed left paren".to_owned());
                }
                if trims {
                    self.at += 2;
                    self.ignore();
                }
                self.at += 2;
                self.emit(Kind::RightDelimiter);
                if trims {
                    self.skip(is_space);
                    self.ignore();
                }
                return Ok(());
            }
            self.token()?;
        }
    }

    fn token(&mut self) -> Result<(), String> {
        let Some(c) = self.next() else { return Err("unclosed action".to_owned()) };
        match c {
            _ if is_space(c) => self.space(),
            '=' => self.emit(Kind::Assign),
            ':' => {
                if self.next() != Some('=') {
                    return Err("expected :=".to_owned());
                }
                self.emit(Kind::Declare);
            }
            '|' => self.emit(Kind::Pipe),
            '"' => self.quoted('"', Kind::String, "unterminated quoted string")?,
            '\'' => self.quoted('\'', Kind::CharConstant, "unterminated character constant")?,
            '`' => {
                let Some(end) = self.left().find('`') else { return Err("unterminated raw quoted string".to_owned()) };
                self.at += end + 1;
                self.emit(Kind::RawString);
            }
            '$' => self.word(Kind::Variable, Kind::Variable)?,
            '.' if !self.left().starts_with(|c: char| c.is_ascii_digit()) => self.word(Kind::Field, Kind::Dot)?,
            '.' | '+' | '-' | '0'..='9' => {
                self.at = self.start;
                self.number()?;
            }
            _ if is_word(c) => self.identifier()?,
            '(' => {
                self.parens += 1;
                self.emit(Kind::LeftParen);
            }
            ')' => {
                let Some(parens) = self.parens.checked_sub(1) else { return Err("unexpected right paren".to_owned()) };
                self.parens = parens;
                self.emit(Kind::RightParen);
            }
            ' '..='~' => self.emit(Kind::Char),
            _ => return Err(format!("unrecognized character in action: {}", named(c))),
        }
        Ok(())
    }

    /// The last space before ` -}}` belongs to the delimiter.
    fn space(&mut self) {
        self.skip(is_space);
        if ends_trimmed(&self.text[self.at - 1..]) {
            self.at -= 1;
            if self.at == self.start {
                return;
            }
        }
        self.emit(Kind::Space);
    }

    fn quoted(&mut self, quote: char, kind: Kind, unended: &str) -> Result<(), String> {
        loop {
            match self.next() {
                Some('\\') if !matches!(self.next(), None | Some('\n')) => {}
                Some('\\' | '\n') | None => return Err(unended.to_owned()),
                Some(c) if c == quote => break,
                Some(_) => {}
            }
        }
        self.emit(kind);
        Ok(())
    }

    fn is_terminated(&self) -> bool {
        match self.peek() {
            None | Some('.' | ',' | '|' | ':' | ')' | '(') => true,
            Some(c) => is_space(c) || self.left().starts_with("}}"),
        }
    }

    fn terminated(&self) -> Result<(), String> {
        match self.peek() {
            Some(c) if !self.is_terminated() => Err(format!("bad character {}", named(c))),
            _ => Ok(()),
        }
    }

    /// A field or a variable, or its sign alone.
    fn word(&mut self, kind: Kind, alone: Kind) -> Result<(), String> {
        if self.is_terminated() {
            self.emit(alone);
            return Ok(());
        }
        self.skip(is_word);
        self.terminated()?;
        self.emit(kind);
        Ok(())
    }

    fn identifier(&mut self) -> Result<(), String> {
        self.skip(is_word);
        self.terminated()?;
        let kind = match &self.text[self.start..self.at] {
            "nil" => Kind::Nil,
            "true" | "false" => Kind::Bool,
            word if KEYWORDS.contains(&word) => Kind::Keyword,
            _ => Kind::Identifier,
        };
        self.emit(kind);
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        let mut kind = Kind::Number;
        let mut good = self.scan_number();
        if good && matches!(self.peek(), Some('+' | '-')) {
            good = self.scan_number() && self.text[..self.at].ends_with('i');
            kind = Kind::Complex;
        }
        if !good {
            return Err(format!("bad number syntax: {}", quoted(&self.text[self.start..self.at])));
        }
        self.emit(kind);
        Ok(())
    }

    fn accept(&mut self, any: &str) -> bool {
        let accepted = self.peek().is_some_and(|c| any.contains(c));
        if accepted {
            self.next();
        }
        accepted
    }

    /// Not exact: what is wrong with it is found when it is read as a number.
    fn scan_number(&mut self) -> bool {
        self.accept("+-");
        let mut digits = "0123456789_";
        if self.accept("0") {
            if self.accept("xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        self.skip(|c| digits.contains(c));
        if self.accept(".") {
            self.skip(|c| digits.contains(c));
        }
        if (digits.len() == 11 && self.accept("eE")) || (digits.len() == 23 && self.accept("pP")) {
            self.accept("+-");
            self.skip(|c| "0123456789_".contains(c));
        }
        self.accept("i");
        if self.peek().is_some_and(is_word) {
            self.next();
            return false;
        }
        true
    }
}

fn starts_trimmed(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.starts_with(SPACES))
}

fn ends_trimmed(text: &str) -> bool {
    text.starts_with(SPACES) && text[1..].starts_with("-}}")
}

/// As Go's `%#U`.
fn named(c: char) -> String {
    format!("U+{:04X} '{c}'", u32::from(c))
}

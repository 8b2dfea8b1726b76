//! Characters to tokens (cel-spec, "Lexis").

use std::sync::Arc;

/// What is wrong with a source, and where (in characters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Issue {
    pub at: u32,
    pub text: String,
}

impl Issue {
    pub fn new(at: u32, text: impl Into<String>) -> Self {
        Self { at, text: text.into() }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Int(i64),
    /// Past the greatest i64 by one: only right after a minus.
    IntMin,
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    Ident(Arc<str>),
    Op(&'static str),
    End,
}

const OPERATORS: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "+", "-", "*", "/", "%", "!",
    "<", ">", "=", "&", "|",
];

/// The tokens of a source with their places; the last is [`Token::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, u32)>, Issue> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0 };
    let mut list = Vec::new();
    loop {
        lexer.skip();
        let at = lexer.place();
        let token = lexer.next()?;
        let last = token == Token::End;
        list.push((token, at));
        if last {
            return Ok(list);
        }
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn place(&self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn skip(&mut self) {
        while let Some(next) = self.peek(0) {
            if next.is_ascii_whitespace() {
                self.at += 1;
            } else if next == '/' && self.peek(1) == Some('/') {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else {
                return;
            }
        }
    }

    fn next(&mut self) -> Result<Token, Issue> {
        let Some(first) = self.peek(0) else { return Ok(Token::End) };
        if first == '"' || first == '\'' {
            return self.text(false).map(|text| Token::String(text.into()));
        }
        if first.is_ascii_digit() || (first == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            if let Some(token) = self.prefixed()? {
                return Ok(token);
            }
            let start = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.at += 1;
            }
            return Ok(Token::Ident(self.slice(start).into()));
        }
        for op in OPERATORS {
            if op.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c)) {
                self.at += op.len();
                return Ok(Token::Op(op));
            }
        }
        Err(Issue::new(self.place(), format!("Syntax error: token recognition error at: '{first}'")))
    }

    fn slice(&self, start: usize) -> String {
        self.chars[start..self.at].iter().collect()
    }

    /// `r"..."`, `b"..."`, `br"..."`.
    fn prefixed(&mut self) -> Result<Option<Token>, Issue> {
        let lower = |c: Option<char>| c.map(|c| c.to_ascii_lowercase());
        let quote = |c: Option<char>| matches!(c, Some('"' | '\''));
        let (len, raw, bytes) = match (lower(self.peek(0)), lower(self.peek(1))) {
            (Some('r'), next) if quote(next) => (1, true, false),
            (Some('b'), next) if quote(next) => (1, false, true),
            (Some('b'), Some('r')) | (Some('r'), Some('b')) if quote(self.peek(2)) => (2, true, true),
            _ => return Ok(None),
        };
        self.at += len;
        if bytes {
            return self.bytes(raw).map(|bytes| Some(Token::Bytes(bytes.into())));
        }
        self.text(raw).map(|text| Some(Token::String(text.into())))
    }

    fn text(&mut self, raw: bool) -> Result<String, Issue> {
        let start = self.place();
        let mut text = String::new();
        self.quoted(raw, false, &mut |code| {
            text.push(char::from_u32(code)?);
            Some(())
        })
        .map_err(|detail| Issue::new(start, format!("Syntax error: {detail}")))?;
        Ok(text)
    }

    fn bytes(&mut self, raw: bool) -> Result<Vec<u8>, Issue> {
        let start = self.place();
        let mut bytes = Vec::new();
        // Escapes are bytes, characters are UTF-8: the two are told apart by a bit that no character has.
        self.quoted(raw, true, &mut |code| {
            match code.checked_sub(ESCAPED_BYTE) {
                Some(byte) => bytes.push(u8::try_from(byte).ok()?),
                None => bytes.extend(char::from_u32(code)?.encode_utf8(&mut [0; 4]).bytes()),
            }
            Some(())
        })
        .map_err(|detail| Issue::new(start, format!("Syntax error: {detail}")))?;
        Ok(bytes)
    }

    fn quoted(&mut self, raw: bool, bytes: bool, push: &mut dyn FnMut(u32) -> Option<()>) -> Result<(), String> {
        let unterminated = || "token recognition error: unterminated string".to_owned();
        let quote = self.peek(0).ok_or_else(unterminated)?;
        let long = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        self.at += if long { 3 } else { 1 };
        loop {
            let next = self.peek(0).ok_or_else(unterminated)?;
            if next == quote && (!long || (self.peek(1) == Some(quote) && self.peek(2) == Some(quote))) {
                self.at += if long { 3 } else { 1 };
                return Ok(());
            }
            if !long && matches!(next, '\n' | '\r') {
                return Err(unterminated());
            }
            self.at += 1;
            if next == '\\' && !raw {
                let code = self.escape(bytes)?;
                push(code).ok_or("invalid unicode code point")?;
            } else {
                push(u32::from(next)).ok_or("invalid unicode code point")?;
                if next == '\\' && self.peek(0).is_some_and(|c| c == quote) {
                    // In a raw string a backslash keeps a quote from ending it, and stays.
                    push(u32::from(quote)).ok_or("invalid unicode code point")?;
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self, bytes: bool) -> Result<u32, String> {
        let kind = self.peek(0).ok_or("unterminated string")?;
        self.at += 1;
        let simple = match kind {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(10),
            'r' => Some(13),
            't' => Some(9),
            'v' => Some(11),
            '\\' | '\'' | '"' | '`' | '?' => Some(u32::from(kind)),
            _ => None,
        };
        if let Some(code) = simple {
            return Ok(code);
        }
        let (radix, len) = match kind {
            'x' | 'X' => (16, 2),
            'u' if !bytes => (16, 4),
            'U' if !bytes => (16, 8),
            '0'..='3' => {
                self.at -= 1;
                (8, 3)
            }
            _ => return Err(format!("unable to unescape next character: \\{kind}")),
        };
        let mut code = 0;
        for _ in 0..len {
            let digit = self.peek(0).and_then(|c| c.to_digit(radix)).ok_or("unable to unescape string")?;
            code = code * radix + digit;
            self.at += 1;
        }
        Ok(if bytes { ESCAPED_BYTE + code } else { code })
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let place = self.place();
        let start = self.at;
        if self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X')) {
            self.at += 2;
            let digits = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_hexdigit()) {
                self.at += 1;
            }
            return self.integer(digits, 16, place);
        }
        let digits = |lexer: &mut Self| {
            while lexer.peek(0).is_some_and(|c| c.is_ascii_digit()) {
                lexer.at += 1;
            }
        };
        digits(self);
        let mut whole = true;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            whole = false;
            self.at += 1;
            digits(self);
        }
        let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
        if matches!(self.peek(0), Some('e' | 'E')) && self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
            whole = false;
            self.at += 1 + sign;
            digits(self);
        }
        if whole {
            return self.integer(start, 10, place);
        }
        let text = self.slice(start);
        text.parse().map(Token::Double).map_err(|_| Issue::new(place, "invalid double literal"))
    }

    fn integer(&mut self, start: usize, radix: u32, place: u32) -> Result<Token, Issue> {
        let value = u64::from_str_radix(&self.slice(start), radix);
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return value.map(Token::Uint).map_err(|_| Issue::new(place, "invalid uint literal"));
        }
        match value {
            Ok(value) => match i64::try_from(value) {
                Ok(value) => Ok(Token::Int(value)),
                Err(_) if value == 1 << 63 => Ok(Token::IntMin),
                Err(_) => Err(Issue::new(place, "invalid int literal")),
            },
            Err(_) => Err(Issue::new(place, "invalid int literal")),
        }
    }
}

/// Marks a byte that was escaped in a bytes literal.
const ESCAPED_BYTE: u32 = 1 << 24;

//! Tokens to a tree (cel-spec, "Syntax").

use super::{
    DEPTH_MAX,
    ast::{Expr, Kind, Name},
    lexer::{Issue, Token, tokens},
    macros,
    value::Value,
};

/// A source may not have more characters (cel-go's `ExpressionSizeCodePointLimit`).
pub(super) const SOURCE_CHARS_MAX: usize = 100_000;

const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Binary operators, the function each stands for and how tightly it binds.
const BINARY: [(&str, &str, u8); 14] = [
    ("||", "_||_", 1),
    ("&&", "_&&_", 2),
    ("<", "_<_", 3),
    ("<=", "_<=_", 3),
    (">", "_>_", 3),
    (">=", "_>=_", 3),
    ("==", "_==_", 3),
    ("!=", "_!=_", 3),
    ("in", "@in", 3),
    ("+", "_+_", 4),
    ("-", "_-_", 4),
    ("*", "_*_", 5),
    ("/", "_/_", 5),
    ("%", "_%_", 5),
];

/// The tree of a source, and how many numbers its expressions have.
pub(super) fn parse(source: &str) -> Result<(Expr, u32)> {
    if source.chars().count() > SOURCE_CHARS_MAX {
        let size = source.chars().count();
        let text = format!("expression code point size exceeds limit: size: {size}, limit {SOURCE_CHARS_MAX}");
        return Err(Issue::new(0, text));
    }
    let mut parser = Parser { tokens: tokens(source)?, next: 0, ids: 0, depth: 0 };
    let expr = parser.expr()?;
    if *parser.peek() != Token::End {
        return Err(parser.unexpected("<EOF>"));
    }
    Ok((expr, parser.ids))
}

pub(super) struct Parser {
    tokens: Vec<(Token, u32)>,
    next: usize,
    ids: u32,
    depth: u16,
}

type Result<T> = std::result::Result<T, Issue>;

impl Parser {
    /// An expression with its own number.
    pub fn make(&mut self, at: u32, kind: Kind) -> Result<Expr> {
        let id = self.ids;
        self.ids += 1;
        let mut expr = Expr { id, at, depth: 0, kind };
        let mut deepest = 0;
        expr.children(&mut |child| deepest = deepest.max(child.depth));
        expr.depth = deepest + 1;
        if expr.depth > DEPTH_MAX { Err(too_deep(at)) } else { Ok(expr) }
    }

    pub fn call(&mut self, at: u32, function: &str, args: Vec<Expr>) -> Result<Expr> {
        self.make(at, Kind::Call { target: None, function: function.into(), args })
    }

    pub fn ident(&mut self, at: u32, name: &Name) -> Result<Expr> {
        self.make(at, Kind::Ident(name.clone()))
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    fn at(&self) -> u32 {
        self.tokens.get(self.next).map_or(0, |(_, at)| *at)
    }

    fn is(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(found) if *found == op)
    }

    fn take(&mut self, op: &str) -> bool {
        let found = self.is(op);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, op: &str) -> Result<()> {
        if self.take(op) { Ok(()) } else { Err(self.unexpected(&format!("'{op}'"))) }
    }

    fn unexpected(&self, expected: &str) -> Issue {
        let found = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Op(op) => (*op).to_owned(),
            Token::Ident(name) => name.to_string(),
            Token::Int(value) => value.to_string(),
            Token::IntMin => (1_u64 << 63).to_string(),
            Token::Uint(value) => format!("{value}u"),
            Token::Double(value) => value.to_string(),
            Token::String(text) => format!("{text:?}"),
            Token::Bytes(_) => "b\"\"".to_owned(),
        };
        Issue::new(self.at(), format!("Syntax error: mismatched input '{found}' expecting {expected}"))
    }

    fn expr(&mut self) -> Result<Expr> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(too_deep(self.at()));
        }
        let condition = self.binary(1)?;
        let at = self.at();
        let expr = if self.take("?") {
            let truthy = self.binary(1)?;
            self.expect(":")?;
            let falsy = self.expr()?;
            self.call(at, "_?_:_", vec![condition, truthy, falsy])?
        } else {
            condition
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn binary_operator(&self) -> Option<(&'static str, u8)> {
        let found = match self.peek() {
            Token::Op(op) => *op,
            Token::Ident(name) if **name == *"in" => "in",
            _ => return None,
        };
        BINARY.iter().find(|(op, ..)| *op == found).map(|(_, function, binds)| (*function, *binds))
    }

    fn binary(&mut self, least: u8) -> Result<Expr> {
        let mut left = self.unary()?;
        while let Some((function, binds)) = self.binary_operator().filter(|(_, binds)| *binds >= least) {
            let at = self.at();
            self.next += 1;
            let right = self.binary(binds + 1)?;
            left = self.joined(at, function, left, right)?;
        }
        Ok(left)
    }

    /// Chains of `&&` and `||` are one call with many arguments, so they are not deep.
    fn joined(&mut self, at: u32, function: &str, left: Expr, right: Expr) -> Result<Expr> {
        let chained = matches!(function, "_&&_" | "_||_");
        match left.kind {
            Kind::Call { target: None, function: of, mut args } if chained && *of == *function && args.len() > 1 => {
                args.push(right);
                self.call(at, function, args)
            }
            kind => self.call(at, function, vec![Expr { kind, ..left }, right]),
        }
    }

    fn unary(&mut self) -> Result<Expr> {
        let at = self.at();
        for (op, function) in [("!", "!_"), ("-", "-_")] {
            let mut count = 0;
            while self.take(op) {
                count += 1;
            }
            if count == 0 {
                continue;
            }
            if op == "-" && count % 2 == 1 {
                let value = match self.peek() {
                    Token::Int(value) => Some(Value::Int(-value)),
                    Token::IntMin => Some(Value::Int(i64::MIN)),
                    Token::Double(value) => Some(Value::Double(-value)),
                    _ => None,
                };
                if let Some(value) = value {
                    self.next += 1;
                    let literal = self.make(at, Kind::Const(value))?;
                    return self.members(literal);
                }
            }
            let operand = self.member()?;
            // An even count cancels out.
            return if count % 2 == 0 { Ok(operand) } else { self.call(at, function, vec![operand]) };
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr> {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut expr: Expr) -> Result<Expr> {
        loop {
            let at = self.at();
            if self.take(".") {
                let optional = self.take("?");
                if let Token::End | Token::Op(_) = self.peek() {
                    let next = if let Token::Op(op) = self.peek() { *op } else { "" };
                    let text = format!("Syntax error: no viable alternative at input '.{next}'");
                    return Err(Issue::new(self.at(), text));
                }
                let name_at = self.at();
                let name = self.name(true)?;
                if optional {
                    let field = self.make(name_at, Kind::Const(Value::String(name.into())))?;
                    expr = self.call(at, "_?._", vec![expr, field])?;
                } else if self.is("(") {
                    let at = self.at();
                    self.next += 1;
                    let args = self.args(")")?;
                    expr = macros::member(self, at, expr, name, args)?;
                } else {
                    expr = self.make(at, Kind::Select { operand: Box::new(expr), field: name, test_only: false })?;
                }
            } else if self.take("[") {
                let function = if self.take("?") { "_[?_]" } else { "_[_]" };
                let index = self.expr()?;
                self.expect("]")?;
                expr = self.call(at, function, vec![expr, index])?;
            } else if self.is("{") && expr.qualified().is_some() {
                return self.message(expr);
            } else {
                return Ok(expr);
            }
        }
    }

    fn message(&mut self, expr: Expr) -> Result<Expr> {
        let at = self.at();
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.take("}") {
            let optional = self.take("?");
            let field = self.name(true)?;
            let colon = self.at();
            self.expect(":")?;
            fields.push((field, colon, self.expr()?, optional));
            if !self.take(",") && !self.is("}") {
                return Err(self.unexpected("'}'"));
            }
        }
        let name = expr.qualified().unwrap_or_default();
        self.make(at, Kind::Struct(name.into(), fields))
    }

    fn name(&mut self, selector: bool) -> Result<Name> {
        let Token::Ident(name) = self.peek() else { return Err(self.unexpected("IDENTIFIER")) };
        let name = name.clone();
        let literal = matches!(&*name, "true" | "false" | "null" | "in");
        if literal || (!selector && RESERVED.contains(&&*name)) {
            return Err(if literal {
                self.unexpected("IDENTIFIER")
            } else {
                Issue::new(self.at(), format!("reserved identifier: {name}"))
            });
        }
        self.next += 1;
        Ok(name)
    }

    /// Expressions up to a closing mark.
    fn args(&mut self, close: &str) -> Result<Vec<Expr>> {
        let mut list = Vec::new();
        if self.take(close) {
            return Ok(list);
        }
        loop {
            list.push(self.expr()?);
            if self.take(close) {
                return Ok(list);
            }
            self.expect(",")?;
        }
    }

    fn primary(&mut self) -> Result<Expr> {
        let at = self.at();
        let value = match self.peek().clone() {
            Token::Int(value) => Value::Int(value),
            Token::IntMin => return Err(Issue::new(at, "invalid int literal")),
            Token::Uint(value) => Value::Uint(value),
            Token::Double(value) => Value::Double(value),
            Token::String(text) => Value::String(text.into()),
            Token::Bytes(bytes) => Value::Bytes(bytes),
            Token::Ident(name) if *name == *"true" => Value::Bool(true),
            Token::Ident(name) if *name == *"false" => Value::Bool(false),
            Token::Ident(name) if *name == *"null" => Value::Null,
            Token::Ident(_) => return self.named(at),
            Token::Op(".") => {
                self.next += 1;
                return self.named(at);
            }
            Token::Op("(") => {
                self.next += 1;
                let inner = self.expr()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Op("[") => return self.list(at),
            Token::Op("{") => return self.map(at),
            _ => return Err(self.unexpected("{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}")),
        };
        self.next += 1;
        self.make(at, Kind::Const(value))
    }

    fn named(&mut self, at: u32) -> Result<Expr> {
        let name = self.name(false)?;
        if self.is("(") {
            let at = self.at();
            self.next += 1;
            let args = self.args(")")?;
            return macros::global(self, at, name, args);
        }
        self.make(at, Kind::Ident(name))
    }

    fn list(&mut self, at: u32) -> Result<Expr> {
        self.next += 1;
        let mut items = Vec::new();
        while !self.take("]") {
            let optional = self.take("?");
            items.push((self.expr()?, optional));
            if !self.take(",") && !self.is("]") {
                return Err(self.unexpected("']'"));
            }
        }
        self.make(at, Kind::List(items))
    }

    fn map(&mut self, at: u32) -> Result<Expr> {
        self.next += 1;
        let mut entries = Vec::new();
        while !self.take("}") {
            let optional = self.take("?");
            let key = self.expr()?;
            self.expect(":")?;
            entries.push((key, self.expr()?, optional));
            if !self.take(",") && !self.is("}") {
                return Err(self.unexpected("'}'"));
            }
        }
        self.make(at, Kind::Map(entries))
    }
}

fn too_deep(at: u32) -> Issue {
    Issue::new(at, format!("expression recursion limit exceeded: {DEPTH_MAX}"))
}

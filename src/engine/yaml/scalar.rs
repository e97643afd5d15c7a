//! Scalars: their source text, and what a plain one means.

/// How a scalar was written; only [`Style::Plain`] ones can be anything but a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    /// Single or double quotes, or tagged `!!str`.
    Quoted,
    /// `|` or `>`.
    Block,
}

/// A scalar as it stood in the file. For plain ones `text` is the source text, untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    pub text: String,
    pub style: Style,
}

/// What a scalar means where its type matters.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved<'a> {
    Null,
    Bool(bool),
    /// Any integer of 64 bits, signed or unsigned.
    Integer(i128),
    /// Includes infinities and NaN, which YAML can write and JSON can't.
    Float(f64),
    String(&'a str),
}

impl Scalar {
    /// Reads the scalar as Go's `yaml.v3` does, since upstream's reading of a file is the one that counts: YAML 1.2's core
    /// schema plus `0777` and `0b1` integers and `_` between digits. `yes`, `no`, `on` and `off` are strings here; see
    /// [`Scalar::as_bool`].
    #[must_use]
    pub fn resolve(&self) -> Resolved<'_> {
        if self.style != Style::Plain {
            return Resolved::String(&self.text);
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
            "true" | "True" | "TRUE" => Resolved::Bool(true),
            "false" | "False" | "FALSE" => Resolved::Bool(false),
            ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Resolved::Float(f64::INFINITY),
            "-.inf" | "-.Inf" | "-.INF" => Resolved::Float(f64::NEG_INFINITY),
            ".nan" | ".NaN" | ".NAN" => Resolved::Float(f64::NAN),
            text => number(text).unwrap_or(Resolved::String(text)),
        }
    }

    /// A boolean where one is asked for; there `yaml.v3` also takes YAML 1.1's words.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self.resolve() {
            Resolved::Bool(value) => Some(value),
            Resolved::String(text) if self.style == Style::Plain => match text {
                "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
                "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.resolve() == Resolved::Null
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.resolve() {
            Resolved::Null => "nothing",
            Resolved::Bool(_) => "a boolean",
            Resolved::Integer(_) | Resolved::Float(_) => "a number",
            Resolved::String(_) => "a string",
        }
    }
}

fn number(text: &str) -> Option<Resolved<'static>> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    integer(&plain).map(Resolved::Integer).or_else(|| float(&plain).map(Resolved::Float))
}

fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` would take a second sign.
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -magnitude } else { magnitude };
    (value >= i128::from(i64::MIN)).then_some(value)
}

fn float(text: &str) -> Option<f64> {
    // Rust also reads `inf`, `nan` and `infinity`, which are words here.
    let digits = text.chars().any(|c| c.is_ascii_digit());
    let shape = text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'));
    if digits && shape { text.parse().ok() } else { None }
}

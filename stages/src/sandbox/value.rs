//! Python values as `encode.py` sends them, and Python's `==` between them, outside the process that made them.

use std::fmt::Write as _;

/// A value that a program under test sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    /// Hexadecimal, with a leading minus sign if negative.
    Int(String),
    /// Its `repr`.
    Float(String),
    /// `repr`s of the real and the imaginary part.
    Complex(String, String),
    /// UTF-8, with surrogates as three bytes each.
    Str(Vec<u8>),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Set(Vec<Value>),
    /// Ellipsis, NotImplemented, or the object `math.nan`.
    Constant(&'static str),
    /// A value type of the standard library, by its name, and what it is made of.
    Known(String, Box<Value>),
    /// An instance of a subclass, by the subclass's name.
    Subclass(String, Box<Value>),
    /// The same object as one that was met before.
    Same,
    /// An instance of another type, by the type's name; whether it is known to be true.
    Opaque(String, bool),
}

/// The deepest nesting that is read; `encode.py` stops earlier.
const MAX_DEPTH: usize = 1000;

impl Value {
    /// Reads an encoded value; `None` if it is not one, which only a program that tampers can bring about.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes };
        let value = reader.value()?;
        reader.bytes.is_empty().then_some(value)
    }

    /// Whether [`Value::equals`] can say what Python's `==` would: there is nothing in it but built-in types, each object once.
    pub(crate) fn is_plain(&self) -> bool {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Set(items) => items.iter().all(Self::is_plain),
            Self::Dict(items) => items.iter().all(|(key, value)| key.is_plain() && value.is_plain()),
            Self::Known(..) | Self::Subclass(..) | Self::Same | Self::Opaque(..) | Self::Constant(_) => false,
            _ => true,
        }
    }

    /// Whether an object of the program's own stands in it.
    pub(crate) fn is_opaque(&self) -> bool {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Set(items) => items.iter().any(Self::is_opaque),
            Self::Dict(items) => items.iter().any(|(key, value)| key.is_opaque() || value.is_opaque()),
            Self::Known(_, inside) | Self::Subclass(_, inside) => inside.is_opaque(),
            Self::Opaque(..) => true,
            _ => false,
        }
    }

    /// Python's `bool(self)`; `None` where this can't say.
    pub(crate) fn truth(&self) -> Option<bool> {
        Some(match self {
            Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(hex) => hex != "0",
            Self::Str(bytes) | Self::Bytes(bytes) => !bytes.is_empty(),
            Self::List(items) | Self::Tuple(items) | Self::Set(items) => !items.is_empty(),
            Self::Dict(items) => !items.is_empty(),
            Self::Opaque(_, true) | Self::Constant(_) => true,
            _ => return None,
        })
    }

    /// Python's `self == other`: numbers by value whatever their type, lists and tuples differ, order matters in
    /// neither dicts nor sets, nan and opaque values equal nothing.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        matches!((self.canonical(), other.canonical()), (Some(a), Some(b)) if a == b)
    }

    /// A text that two values share exactly if they are equal; `None` for what equals nothing.
    fn canonical(&self) -> Option<Vec<u8>> {
        Some(match self {
            Self::None => b"N".to_vec(),
            Self::Bool(value) => number(if *value { "1" } else { "0" }, "1"),
            Self::Int(hex) => number(hex, "1"),
            Self::Float(repr) => float(repr)?,
            Self::Complex(real, imaginary) => {
                let imaginary = float(imaginary)?;
                let real = float(real)?;
                if imaginary == number("0", "1") { real } else { [b"c".to_vec(), real, imaginary].concat() }
            }
            Self::Str(bytes) => tagged(b's', bytes),
            Self::Bytes(bytes) => tagged(b'y', bytes),
            Self::List(items) => sequence(b'[', items)?,
            Self::Tuple(items) => sequence(b'(', items)?,
            Self::Set(items) => {
                let mut items = items.iter().map(Self::canonical).collect::<Option<Vec<_>>>()?;
                items.sort();
                join(b'<', items)
            }
            Self::Dict(items) => {
                let pair = |(key, value): &(Self, Self)| Some([key.canonical()?, value.canonical()?].concat());
                let mut items = items.iter().map(pair).collect::<Option<Vec<_>>>()?;
                items.sort();
                join(b'{', items)
            }
            _ => return None,
        })
    }

    /// About what Python's `repr` shows, for people, in at most about `limit` characters.
    pub(crate) fn show(&self, limit: usize) -> String {
        let mut text = String::new();
        self.write(&mut text, limit);
        if text.chars().count() > limit {
            text = text.chars().take(limit.saturating_sub(3)).collect::<String>() + "...";
        }
        text
    }

    fn write(&self, text: &mut String, limit: usize) {
        if text.len() > limit {
            return;
        }
        let mut list = |open: &str, items: &[Self], close: &str| {
            text.push_str(open);
            for (index, item) in items.iter().enumerate().take_while(|(index, _)| *index <= limit) {
                text.push_str(if index > 0 { ", " } else { "" });
                item.write(text, limit);
            }
            text.push_str(close);
        };
        match self {
            Self::List(items) => list("[", items, "]"),
            Self::Tuple(items) => list("(", items, if items.len() == 1 { ",)" } else { ")" }),
            Self::Set(items) if items.is_empty() => text.push_str("set()"),
            Self::Set(items) => {
                let mut items = items.clone();
                items.sort_by_cached_key(|item| (item.integer(), item.canonical()));
                list("{", &items, "}");
            }
            Self::Dict(items) => {
                text.push('{');
                for (index, (key, value)) in items.iter().enumerate() {
                    text.push_str(if index > 0 { ", " } else { "" });
                    key.write(text, limit);
                    text.push_str(": ");
                    value.write(text, limit);
                }
                text.push('}');
            }
            Self::None => text.push_str("None"),
            Self::Bool(value) => text.push_str(if *value { "True" } else { "False" }),
            Self::Int(hex) => match self.integer() {
                Some(value) => _ = write!(text, "{value}"),
                None => _ = write!(text, "{}", hex.replacen("-", "-0x", 1)),
            },
            Self::Float(repr) => text.push_str(repr),
            Self::Complex(real, imaginary) => _ = write!(text, "complex({real}, {imaginary})"),
            Self::Str(bytes) => show_text(text, &String::from_utf8_lossy(bytes), limit),
            Self::Bytes(bytes) => {
                text.push('b');
                show_text(text, &bytes.escape_ascii().to_string(), limit);
            }
            Self::Constant(name) => text.push_str(name),
            Self::Known(name, inside) => {
                // A single value stands in parentheses already if it is a tuple.
                let bare = matches!(**inside, Self::Tuple(_));
                _ = write!(text, "{name}{}", if bare { "" } else { "(" });
                inside.write(text, limit);
                text.push_str(if bare { "" } else { ")" });
            }
            Self::Subclass(name, inside) => {
                _ = write!(text, "{name}(");
                inside.write(text, limit);
                text.push(')');
            }
            Self::Same => text.push_str("<the same object>"),
            Self::Opaque(name, _) => _ = write!(text, "<{name}>"),
        }
    }

    fn integer(&self) -> Option<i128> {
        let Self::Int(hex) = self else { return None };
        i128::from_str_radix(hex, 16).ok()
    }
}

fn show_text(text: &mut String, value: &str, limit: usize) {
    let quote = if value.contains('\'') && !value.contains('"') { '"' } else { '\'' };
    text.push(quote);
    for character in value.chars().take(limit + 1) {
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\\' => text.push_str("\\\\"),
            c if c == quote => _ = write!(text, "\\{c}"),
            c if c.is_control() => _ = write!(text, "\\x{:02x}", u32::from(c)),
            c => text.push(c),
        }
    }
    text.push(quote);
}

fn tagged(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [format!("{}{}:", char::from(tag), bytes.len()).as_bytes(), bytes].concat()
}

fn sequence(tag: u8, items: &[Value]) -> Option<Vec<u8>> {
    Some(join(tag, items.iter().map(Value::canonical).collect::<Option<Vec<_>>>()?))
}

fn join(tag: u8, items: Vec<Vec<u8>>) -> Vec<u8> {
    [format!("{}{}:", char::from(tag), items.len()).into_bytes(), items.concat()].concat()
}

/// A number as a reduced fraction in hexadecimal.
fn number(numerator: &str, denominator: &str) -> Vec<u8> {
    format!("#{numerator}/{denominator};").into_bytes()
}

/// A float as the exact fraction that it is: odd mantissa times a power of two.
fn float(repr: &str) -> Option<Vec<u8>> {
    let value: f64 = repr.parse().ok()?;
    if value.is_nan() {
        return None;
    }
    if value.is_infinite() {
        return Some(if value > 0.0 { b"+inf;".to_vec() } else { b"-inf;".to_vec() });
    }
    if value == 0.0 {
        return Some(number("0", "1"));
    }
    let bits = value.abs().to_bits();
    let (mut mantissa, mut exponent) = match bits >> 52 {
        0 => (bits, -1074),
        exponent => ((bits & ((1 << 52) - 1)) | (1 << 52), exponent as i32 - 1075),
    };
    let zeros = mantissa.trailing_zeros();
    mantissa >>= zeros;
    exponent += zeros as i32;
    let sign = if value < 0.0 { "-" } else { "" };
    Some(match u32::try_from(exponent) {
        Ok(shift) => number(&format!("{sign}{}", shifted(mantissa, shift)), "1"),
        Err(_) => number(&format!("{sign}{mantissa:x}"), &shifted(1, exponent.unsigned_abs())),
    })
}

/// `mantissa << shift` in hexadecimal; the mantissa has at most 53 bits.
fn shifted(mantissa: u64, shift: u32) -> String {
    format!("{:x}{}", u128::from(mantissa) << (shift % 4), "0".repeat(shift as usize / 4))
}

struct Reader<'a> {
    bytes: &'a [u8],
}

/// A container of which the end was not read yet.
struct Open {
    tag: u8,
    /// A known type's or a subclass's.
    name: String,
    items: Vec<Value>,
}

impl Open {
    /// The byte that closes it; those that hold a single value are closed by it.
    fn close(&self) -> Option<u8> {
        match self.tag {
            b'[' => Some(b']'),
            b'(' => Some(b')'),
            b'<' => Some(b'>'),
            b'{' => Some(b'}'),
            _ => None,
        }
    }

    fn value(self) -> Option<Value> {
        let mut items = self.items;
        Some(match self.tag {
            b'[' => Value::List(items),
            b'(' => Value::Tuple(items),
            b'<' => Value::Set(items),
            b'{' => {
                let mut items = items.into_iter();
                let mut pairs = Vec::new();
                while let Some(key) = items.next() {
                    pairs.push((key, items.next()?));
                }
                Value::Dict(pairs)
            }
            b'x' => Value::Known(self.name, Box::new(items.pop()?)),
            _ => Value::Subclass(self.name, Box::new(items.pop()?)),
        })
    }
}

impl Reader<'_> {
    /// The next value. Containers are kept on a stack of our own: how deep they are is the program's choice.
    fn value(&mut self) -> Option<Value> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let (&tag, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            let mut value = match tag {
                b'[' | b'(' | b'<' | b'{' | b'x' | b'u' | b'U' => {
                    if open.len() >= MAX_DEPTH {
                        return None;
                    }
                    let name = if matches!(tag, b'x' | b'u' | b'U') { self.name()? } else { String::new() };
                    open.push(Open { tag, name, items: Vec::new() });
                    continue;
                }
                b']' | b')' | b'>' | b'}' => {
                    let closed = open.pop().filter(|open| open.close() == Some(tag))?;
                    closed.value()?
                }
                tag => self.atom(tag)?,
            };
            loop {
                let Some(around) = open.last_mut() else { return Some(value) };
                around.items.push(value);
                if around.close().is_some() {
                    break;
                }
                value = open.pop()?.value()?;
            }
        }
    }

    fn atom(&mut self, tag: u8) -> Option<Value> {
        Some(match tag {
            b'N' => Value::None,
            b'T' => Value::Bool(true),
            b'F' => Value::Bool(false),
            b'i' => Value::Int(self.word(b';')?),
            b'f' => Value::Float(self.word(b';')?),
            b'c' => Value::Complex(self.word(b';')?, self.word(b';')?),
            b's' => Value::Str(self.counted()?),
            b'y' => Value::Bytes(self.counted()?),
            b'G' => Value::Constant("nan"),
            b'E' => Value::Constant("Ellipsis"),
            b'J' => Value::Constant("NotImplemented"),
            b'R' => {
                self.word(b';')?;
                Value::Same
            }
            b'o' | b'O' => Value::Opaque(self.name()?, tag == b'o'),
            _ => return None,
        })
    }

    fn name(&mut self) -> Option<String> {
        Some(String::from_utf8_lossy(&self.counted()?).into_owned())
    }

    fn word(&mut self, end: u8) -> Option<String> {
        let length = self.bytes.iter().position(|&byte| byte == end)?;
        let word = std::str::from_utf8(&self.bytes[..length]).ok()?.to_owned();
        self.bytes = &self.bytes[length + 1..];
        Some(word)
    }

    fn counted(&mut self) -> Option<Vec<u8>> {
        let length: usize = self.word(b':')?.parse().ok()?;
        let bytes = self.bytes.get(..length)?.to_vec();
        self.bytes = &self.bytes[length..];
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(a: &str, b: &str) -> bool {
        Value::parse(a.as_bytes()).unwrap().equals(&Value::parse(b.as_bytes()).unwrap())
    }

    #[test]
    fn numbers_are_equal_by_value() {
        assert!(equal("i1;", "T") && equal("i1;", "f1.0;") && equal("F", "f-0.0;"));
        assert!(equal("i56bc75e2d63100000;", "f1e+20;") && equal("c2.0;0.0;", "i2;") && equal("i-3;", "f-3.0;"));
        assert!(!equal("f0.1;", "i0;") && !equal("i20000000000001;", "f9007199254740992.0;"));
        assert!(equal("f5e-324;", "f5e-324;") && equal("finf;", "finf;") && !equal("finf;", "f-inf;"));
    }

    #[test]
    fn nan_and_opaque_values_equal_nothing() {
        assert!(!equal("fnan;", "fnan;") && !equal("[fnan;]", "[fnan;]") && !equal("o3:Foo", "o3:Foo"));
    }

    #[test]
    fn containers_follow_python() {
        assert!(!equal("[i1;]", "(i1;)") && equal("<i1;i2;>", "<i2;T>") && !equal("<>", "{}"));
        assert!(equal("{s1:ai1;s1:bi2;}", "{s1:bi2;s1:af1.0;}") && !equal("{s1:ai1;}", "{s1:ai2;}"));
        assert!(!equal("s1:1", "y1:1") && !equal("[s2:ab]", "[s1:as1:b]"));
    }

    #[test]
    fn nonsense_is_no_value() {
        for bytes in ["", "i1", "[i1;", "s9:ab", "{i1;}", "N]", "x", "s-1:a", "]"] {
            assert_eq!(Value::parse(bytes.as_bytes()), None, "{bytes}");
        }
        assert_eq!(Value::parse("[".repeat(100_000).as_bytes()), None);
    }

    #[test]
    fn what_only_python_can_compare_is_not_plain() {
        let plain = |text: &str| Value::parse(text.as_bytes()).unwrap().is_plain();
        assert!(
            plain("[i1;(N){s1:aT}<fnan;>]") && !plain("[x9:frozenset[]]") && !plain("(u1:Pi1;)") && !plain("[[]R1;]")
        );
        let opaque = |text: &str| Value::parse(text.as_bytes()).unwrap().is_opaque();
        assert!(opaque("[u1:L[o1:A]]") && opaque("O1:A") && !opaque("x5:deque([i1;]N)"));
    }

    #[test]
    fn values_are_shown_as_python_shows_them() {
        let value = Value::parse(b"[i-1f;f0.5;s4:it's{s1:aN}<ia;i9;>(i1;)]").unwrap();
        assert_eq!(value.show(80), r#"[-31, 0.5, "it's", {'a': None}, {9, 10}, (1,)]"#);
        let other = Value::parse(b"[x4:date(i7e4;i1;i2;)x7:Decimals3:1.5u1:P(i1;i2;)x5:deque([]N)R3;o1:AE]").unwrap();
        let shown = "[date(2020, 1, 2), Decimal('1.5'), P((1, 2)), deque([], None), <the same object>, <A>, Ellipsis]";
        assert_eq!(other.show(200), shown);
        assert_eq!(value.show(12), "[-31, 0.5...");
    }
}

//! Canonical JSON (docs/formats.md section 1): RFC 8785 restricted to integers.
//!
//! The reader accepts the canonical bytes or nothing: it parses, writes again and compares, so two
//! different byte strings can never be read as the same document.

use thiserror::Error;

/// Most arrays and objects that may be open at once.
pub const DEPTH_MAX: usize = 32;
/// Largest magnitude of an integer, 2^53 - 1; larger ones travel as decimal strings.
pub const INTEGER_MAX: i64 = 9_007_199_254_740_991;

/// One JSON value. Object members are in canonical order (UTF-16 code units of the key).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`: unknown or none.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer, `|n| <= INTEGER_MAX`.
    Integer(i64),
    /// A string of Unicode scalar values.
    String(String),
    /// An array.
    Array(Vec<Value>),
    /// An object, members sorted.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The member `name` of an object; `None` when there is none or this is no object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The string, when this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, when this is one that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// Builds an object; the members are put into canonical order.
    #[must_use]
    pub fn object(mut members: Vec<(String, Self)>) -> Self {
        members.sort_by(|(a, _), (b, _)| compare_keys(a, b));
        Self::Object(members)
    }
}

/// Why bytes are not a canonical document. Offsets are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    /// Longer than the reader's limit.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// No JSON value, or one in a form that canonical JSON never has, at this offset.
    #[error("not canonical JSON at byte {0}")]
    Syntax(usize),
    /// More than [`DEPTH_MAX`] arrays and objects open at this offset.
    #[error("nested deeper than 32 at byte {0}")]
    TooDeep(usize),
    /// An integer beyond 2^53 - 1 at this offset.
    #[error("integer beyond 2^53-1 at byte {0}")]
    Integer(usize),
    /// Keys not in ascending order, which duplicates are not either.
    #[error("object keys not in canonical order, or one twice, at byte {0}")]
    KeyOrder(usize),
    /// Writing the value again gave other bytes.
    #[error("not the canonical form of its value")]
    NotCanonical,
}

/// Reads canonical JSON of at most `bytes_max` bytes.
///
/// # Errors
/// Anything but the canonical bytes of one value is refused.
pub fn parse(bytes: &[u8], bytes_max: usize) -> Result<Value, JsonError> {
    if bytes.len() > bytes_max {
        return Err(JsonError::TooLong(bytes_max));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?;
    let mut parser = Parser { text, at: 0, depth: 0 };
    let value = parser.value()?;
    if parser.at != bytes.len() {
        return Err(JsonError::Syntax(parser.at));
    }
    if write(&value).as_bytes() != bytes {
        return Err(JsonError::NotCanonical);
    }
    Ok(value)
}

/// The canonical text of a value.
#[must_use]
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, &mut out);
    out
}

/// RFC 8785 order: by UTF-16 code units, which differs from UTF-8 order above U+FFFF.
fn compare_keys(a: &str, b: &str) -> std::cmp::Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Integer(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (position, (key, member)) in members.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_value(member, out);
            }
            out.push('}');
        }
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if control < ' ' => {
                let code = u32::from(control);
                out.push_str(if code < 16 { "\\u000" } else { "\\u001" });
                out.push(char::from_digit(code & 15, 16).unwrap_or('0'));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.skip(1);
        }
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(JsonError::Syntax(self.at)) }
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, JsonError> {
        if !self.rest().starts_with(word) {
            return Err(JsonError::Syntax(self.at));
        }
        self.skip(word.len());
        Ok(value)
    }

    fn value(&mut self) -> Result<Value, JsonError> {
        match self.peek() {
            Some(b'n') => self.word("null", Value::Null),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.integer(),
            Some(b'[') => self.nested(Self::array),
            Some(b'{') => self.nested(Self::object),
            _ => Err(JsonError::Syntax(self.at)),
        }
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Value, JsonError>,
    ) -> Result<Value, JsonError> {
        if self.depth >= DEPTH_MAX {
            return Err(JsonError::TooDeep(self.at));
        }
        self.depth = self.depth.saturating_add(1);
        let value = read(self)?;
        self.depth = self.depth.saturating_sub(1);
        Ok(value)
    }

    fn array(&mut self) -> Result<Value, JsonError> {
        self.expect(b'[')?;
        let mut items = Vec::new();
        if self.eat(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            if self.eat(b']') {
                return Ok(Value::Array(items));
            }
            self.expect(b',')?;
        }
    }

    fn object(&mut self) -> Result<Value, JsonError> {
        self.expect(b'{')?;
        let mut members: Vec<(String, Value)> = Vec::new();
        if self.eat(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            let start = self.at;
            let key = self.string()?;
            if let Some((before, _)) = members.last()
                && compare_keys(before, &key).is_ge()
            {
                return Err(JsonError::KeyOrder(start));
            }
            self.expect(b':')?;
            let value = self.value()?;
            members.push((key, value));
            if self.eat(b'}') {
                return Ok(Value::Object(members));
            }
            self.expect(b',')?;
        }
    }

    fn integer(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        let length =
            self.rest().bytes().take_while(|byte| *byte == b'-' || byte.is_ascii_digit()).count();
        self.skip(length);
        let text = self.text.get(start..self.at).unwrap_or_default();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || digits.contains('-') {
            return Err(JsonError::Syntax(start));
        }
        match text.parse::<i64>() {
            Ok(number) if number.abs() <= INTEGER_MAX => Ok(Value::Integer(number)),
            _ => Err(JsonError::Integer(start)),
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.expect(b'"')?;
        let mut out = String::new();
        loop {
            let rest = self.rest();
            let plain = rest
                .find(|character: char| matches!(character, '"' | '\\') || character < ' ')
                .ok_or(JsonError::Syntax(self.text.len()))?;
            out.push_str(rest.get(..plain).unwrap_or_default());
            self.skip(plain);
            if self.eat(b'"') {
                return Ok(out);
            }
            out.push(self.escape()?);
        }
    }

    /// One escape in the only forms that canonical JSON writes.
    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.expect(b'\\')?;
        let kind = self.peek().ok_or(JsonError::Syntax(start))?;
        self.skip(1);
        Ok(match kind {
            b'"' => '"',
            b'\\' => '\\',
            b'b' => '\u{8}',
            b't' => '\t',
            b'n' => '\n',
            b'f' => '\u{c}',
            b'r' => '\r',
            b'u' => {
                let digits = self.rest().get(..4).ok_or(JsonError::Syntax(start))?;
                if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(JsonError::Syntax(start));
                }
                let code = u32::from_str_radix(digits, 16).map_err(|_| JsonError::Syntax(start))?;
                let character = char::from_u32(code).ok_or(JsonError::Syntax(start))?;
                self.skip(4);
                character
            }
            _ => return Err(JsonError::Syntax(start)),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests stop at the first surprise")]
mod tests {
    use super::{JsonError, Value, parse, write};

    const LIMIT: usize = 65_536;

    #[test]
    fn reads_and_writes_canonical_documents() {
        for text in [
            "null",
            "true",
            "0",
            "-1",
            "9007199254740991",
            "[]",
            "{}",
            r#"{"":1,"a":[1,"x",null,{"b":false}]}"#,
            r#""\b\t\n\f\r\"\\\u0000\u001f/€😀""#,
            "\"\u{7f}\u{2028}\"",
        ] {
            let value = parse(text.as_bytes(), LIMIT).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(write(&value), text);
        }
    }

    #[test]
    fn sorts_keys_by_utf16_code_units() {
        // U+FB33 sorts after U+1F600 in UTF-16 (0xFB33 > 0xD83D), before it in UTF-8.
        let sorted = "{\"\u{1F600}\":1,\"\u{FB33}\":2}";
        assert!(parse(sorted.as_bytes(), LIMIT).is_ok());
        let reversed = "{\"\u{FB33}\":2,\"\u{1F600}\":1}";
        assert!(matches!(parse(reversed.as_bytes(), LIMIT), Err(JsonError::KeyOrder(_))));
        let built = Value::object(vec![
            ("\u{FB33}".into(), Value::Integer(2)),
            ("\u{1F600}".into(), Value::Integer(1)),
        ]);
        assert_eq!(write(&built), sorted);
    }

    #[test]
    fn refuses_everything_that_is_not_canonical() {
        for text in [
            "",
            " 1",
            "1 ",
            "1\n",
            "01",
            "-0",
            "-",
            "--1",
            "1-2",
            "1.0",
            "1e3",
            "9007199254740992",
            "-9007199254740992",
            "99999999999999999999999",
            "nul",
            "[1,]",
            "[1 ,2]",
            "[",
            "{\"a\":1",
            "{\"a\":1,}",
            "{\"a\":1,\"a\":2}",
            "{\"b\":1,\"a\":2}",
            "{\"a\": 1}",
            "{a:1}",
            "\"\\/\"",
            "\"\\u0041\"",
            "\"\\u000A\"",
            "\"\\u001F\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud800\"",
            "\"\\u00\"",
            "\"\n\"",
            "\"",
            "\"\\",
            "'a'",
            "NaN",
        ] {
            assert!(parse(text.as_bytes(), LIMIT).is_err(), "accepted {text:?}");
        }
        assert_eq!(parse(b"\"\xed\xa0\x80\"", LIMIT), Err(JsonError::NotUtf8));
        assert_eq!(parse(b"\"abc\"", 4), Err(JsonError::TooLong(4)));
    }

    #[test]
    fn bounds_the_depth() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(32).as_bytes(), LIMIT).is_ok());
        assert_eq!(parse(nested(33).as_bytes(), LIMIT), Err(JsonError::TooDeep(32)));
        assert!(parse("[".repeat(60_000).as_bytes(), LIMIT).is_err());
    }
}

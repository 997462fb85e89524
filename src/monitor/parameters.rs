//! The parameters of a request, read as the reference reads them with Go's `net/url` and `strconv`: the first of a name
//! counts, an empty value is none, and a mistake has the text that those would write.

use super::answer::Answer;

/// The part of a request behind the `?`, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters(Vec<(String, String)>);

impl FromIterator<(String, String)> for Parameters {
    /// Those that stand somewhere else than in a query.
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Parameters {
        Parameters(pairs.into_iter().collect())
    }
}

impl Parameters {
    /// Takes a query apart. What has a semicolon in it is left out, as Go does.
    pub fn parse(query: &str) -> Parameters {
        let pairs = query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
        Parameters(
            pairs.flat_map(|pair| form_urlencoded::parse(pair.as_bytes()).into_owned().next()).collect(),
        )
    }

    /// The first value of that name, empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// A text, or nothing if it is empty.
    pub fn filter(&self, name: &str) -> Option<String> {
        let text = self.text(name);
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A switch; off if it is not there.
    ///
    /// # Errors
    ///
    /// It is neither on nor off.
    pub fn boolean(&self, name: &str) -> Result<bool, Answer> {
        match self.text(name) {
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            text => Err(Answer::bad_request(format!(
                "Error decoding boolean for '{name}': strconv.ParseBool: parsing {}: invalid syntax",
                quoted(text)
            ))),
        }
    }

    /// A number; 0 if it is not there.
    ///
    /// # Errors
    ///
    /// It is no number, or none that fits.
    pub fn integer(&self, name: &str) -> Result<i64, Answer> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(0);
        }
        text.parse().map_err(|_| {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            number_error("int", "Atoi", name, text, digits)
        })
    }

    /// A number that is not negative; 0 if it is not there.
    ///
    /// # Errors
    ///
    /// It is no number, or none that fits.
    pub fn unsigned(&self, name: &str) -> Result<u64, Answer> {
        let text = self.text(name);
        if text.is_empty() {
            return Ok(0);
        }
        let signed = text.starts_with('+');
        text.parse()
            .ok()
            .filter(|_| !signed)
            .ok_or_else(|| number_error("uint64", "ParseUint", name, text, text))
    }

    /// `subs`: nothing, a list of subjects, or the details.
    ///
    /// # Errors
    ///
    /// It is none of those.
    pub fn subscriptions(&self) -> Result<Subscriptions, Answer> {
        if self.text("subs").eq_ignore_ascii_case("detail") {
            return Ok(Subscriptions::Detail);
        }
        Ok(if self.boolean("subs")? { Subscriptions::Subjects } else { Subscriptions::No })
    }
}

/// How much is to be told of the subscriptions of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Subscriptions {
    /// Their number.
    #[default]
    No,
    /// Their subjects.
    Subjects,
    /// All there is.
    Detail,
}

fn number_error(kind: &str, function: &str, name: &str, text: &str, digits: &str) -> Answer {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let reason = if is_number { "value out of range" } else { "invalid syntax" };
    Answer::bad_request(format!(
        "Error decoding {kind} for '{name}': strconv.{function}: parsing {}: {reason}",
        quoted(text)
    ))
}

/// As Go's `strconv.Quote`, for what is likely in a parameter.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() && (c as u32) < 0x80 => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: Answer) -> String {
        String::from_utf8(answer.body).unwrap()
    }

    #[test]
    fn the_first_of_a_name_counts_and_what_is_empty_is_not_there() {
        let parameters = Parameters::parse("a=1&a=2&b=&c&d=x%20y+z&e=%24G&&f;g=1");
        assert_eq!(parameters.text("a"), "1");
        assert_eq!((parameters.text("b"), parameters.text("c"), parameters.text("nope")), ("", "", ""));
        assert_eq!((parameters.text("d"), parameters.text("e")), ("x y z", "$G"));
        assert_eq!(parameters.filter("b"), None);
        assert_eq!(parameters.text("f;g"), "");
    }

    #[test]
    fn switches_have_the_words_of_go() {
        let parameters = Parameters::parse("a=T&b=False&c=yes&d=%22");
        assert_eq!((parameters.boolean("a"), parameters.boolean("b")), (Ok(true), Ok(false)));
        assert_eq!(
            text(parameters.boolean("c").unwrap_err()),
            "Error decoding boolean for 'c': strconv.ParseBool: parsing \"yes\": invalid syntax"
        );
        assert!(text(parameters.boolean("d").unwrap_err()).contains(r#"parsing "\"": invalid"#));
    }

    #[test]
    fn numbers_that_are_none_and_numbers_that_are_too_big_are_told_apart() {
        let parameters = Parameters::parse("a=-3&b=x&c=99999999999999999999&d=-&e=%2B4");
        assert_eq!((parameters.integer("a"), parameters.integer("e")), (Ok(-3), Ok(4)));
        assert!(text(parameters.integer("b").unwrap_err()).ends_with("parsing \"x\": invalid syntax"));
        assert!(text(parameters.integer("c").unwrap_err()).ends_with("value out of range"));
        assert!(text(parameters.integer("d").unwrap_err()).ends_with("invalid syntax"));
        assert_eq!(
            text(parameters.unsigned("a").unwrap_err()),
            "Error decoding uint64 for 'a': strconv.ParseUint: parsing \"-3\": invalid syntax"
        );
        assert!(text(parameters.unsigned("c").unwrap_err()).ends_with("value out of range"));
        assert!(parameters.unsigned("e").is_err());
    }
}

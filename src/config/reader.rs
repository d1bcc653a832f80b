//! Looking up settings in parsed TOML, with every error collected and none of them stopping the rest.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem, nearest};

/// A table of the text, with the name it has in errors.
#[derive(Clone)]
pub(super) struct Section<'t> {
    pub(super) name: String,
    pub(super) table: &'t DeTable<'t>,
    /// Where in the text it starts.
    pub(super) at: usize,
}

impl<'t> Section<'t> {
    pub(super) fn value(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// Where the lines of the text end, and what is wrong with it so far.
pub(super) struct Reader {
    /// In order, so that a text with an error in each line is read in reasonable time.
    line_ends: Vec<usize>,
    pub(super) errors: Vec<ConfigError>,
}

impl Reader {
    pub(super) fn new(text: &str) -> Self {
        Self { line_ends: text.match_indices('\n').map(|(at, _)| at).collect(), errors: Vec::new() }
    }

    /// The line of an offset in the text, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        1 + self.line_ends.partition_point(|&end| end < at)
    }

    pub(super) fn refuse(&mut self, at: usize, key: String, problem: Problem) {
        self.errors.push(ConfigError { line: self.line(at), key, problem });
    }

    pub(super) fn refuse_in(&mut self, section: &Section, key: &str, problem: Problem) {
        let at = section.value(key).map_or(section.at, |value| value.span().start);
        self.refuse(at, section.path(key), problem);
    }

    pub(super) fn refuse_type(&mut self, section: &Section, key: &str, expected: &'static str) {
        let found = section.value(key).map_or("nothing", |value| type_name(value.get_ref()));
        self.refuse_in(section, key, Problem::WrongType { expected, found });
    }

    pub(super) fn check_keys(&mut self, section: &Section, known: &'static [&'static str]) {
        for key in section.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let problem = Problem::Unknown { nearest: nearest(key.get_ref(), known), known };
            self.refuse(key.span().start, section.path(key.get_ref()), problem);
        }
    }

    /// A setting that is a text, in the form its parser gives it; `None` when it is not there or wrong.
    pub(super) fn optional<T>(
        &mut self,
        section: &Section,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<T> {
        match section.value(key)?.get_ref() {
            DeValue::String(text) => parse(text).map_err(|problem| self.refuse_in(section, key, problem)).ok(),
            _ => {
                self.refuse_type(section, key, "text in quotes");
                None
            }
        }
    }

    /// As [`Reader::optional`], but it must be there.
    pub(super) fn required<T>(
        &mut self,
        section: &Section,
        key: &str,
        example: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Problem>,
    ) -> Option<T> {
        if section.value(key).is_none() {
            self.refuse_in(section, key, Problem::Missing { example });
        }
        self.optional(section, key, parse)
    }

    /// A number within bounds; `None` when it is none, and then that is said under the name of the setting.
    pub(super) fn number(&mut self, value: &Spanned<DeValue>, name: String, min: u32, max: u32) -> Option<u32> {
        let at = value.span().start;
        let DeValue::Integer(number) = value.get_ref() else {
            let found = type_name(value.get_ref());
            self.refuse(at, name, Problem::WrongType { expected: "a whole number", found });
            return None;
        };
        let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let number = number.and_then(|number| u32::try_from(number).ok()).filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.refuse(at, name, Problem::OutOfBounds { min, max });
        }
        number
    }

    /// As [`Reader::number`], by its key; `None` also when it is not there.
    #[cfg(feature = "service")]
    pub(super) fn number_in(&mut self, section: &Section, key: &str, min: u32, max: u32) -> Option<u32> {
        self.number(section.value(key)?, section.path(key), min, max)
    }

    /// A setting that is true or false; `None` when it is not there or something else.
    #[cfg(feature = "service")]
    pub(super) fn boolean(&mut self, section: &Section, key: &str) -> Option<bool> {
        match section.value(key)?.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                self.refuse_type(section, key, "true or false");
                None
            }
        }
    }

    /// A table inside a section; `None` when it is not there or something else.
    pub(super) fn section<'s>(&mut self, parent: &Section<'s>, key: &str) -> Option<Section<'s>> {
        let value = parent.value(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section { name: parent.path(key), table, at: value.span().start }),
            _ => {
                self.refuse_type(parent, key, "a table");
                None
            }
        }
    }

    /// The tables of a list of tables; none when it is not there or something else.
    pub(super) fn sections<'s>(&mut self, parent: &Section<'s>, key: &str, expected: &'static str) -> Vec<Section<'s>> {
        let Some(value) = parent.value(key) else { return Vec::new() };
        let DeValue::Array(elements) = value.get_ref() else {
            self.refuse_type(parent, key, expected);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            let name = format!("{}[{index}]", parent.path(key));
            match element.get_ref() {
                DeValue::Table(table) => sections.push(Section { name, table, at: element.span().start }),
                other => {
                    let problem = Problem::WrongType { expected, found: type_name(other) };
                    self.refuse(element.span().start, name, problem);
                }
            }
        }
        sections
    }
}

fn type_name(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

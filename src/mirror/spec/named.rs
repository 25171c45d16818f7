//! Values as named bytes, for a digest that is the same on every build.
//!
//! ```text
//! value   NAME LENGTH ':' BYTES '\n'
//! absent  NAME '-' '\n'
//! ```
//!
//! The names and forms here are part of the plan file's format: whoever changes one raises that format.

/// Bytes of one entry.
#[derive(Default)]
pub struct NamedBytes(Vec<u8>);

impl NamedBytes {
    /// Appends a value.
    pub fn add(&mut self, name: &str, value: Option<impl AsRef<[u8]>>) {
        self.0.extend(name.bytes());
        match value {
            None => self.0.push(b'-'),
            Some(value) => {
                let value = value.as_ref();
                self.0.extend(format!(" {}:", value.len()).bytes());
                self.0.extend(value);
            }
        }
        self.0.push(b'\n');
    }

    /// Appends the text of a value.
    pub fn add_text(&mut self, name: &str, value: Option<impl ToString>) {
        self.add(name, value.map(|value| value.to_string()));
    }

    /// All of them.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_lists_of_values_have_the_same_bytes() {
        let bytes = |values: &[(&str, Option<&str>)]| {
            let mut bytes = NamedBytes::default();
            values
                .iter()
                .for_each(|(name, value)| bytes.add(name, *value));
            bytes.into_bytes()
        };
        assert_eq!(bytes(&[("a", Some("1\n")), ("b", None)]), b"a 2:1\n\nb-\n");
        assert_ne!(bytes(&[("a", Some(""))]), bytes(&[("a", None)]));
        assert_ne!(
            bytes(&[("a", Some("b-\n"))]),
            bytes(&[("a", Some("")), ("b", None)])
        );
    }
}

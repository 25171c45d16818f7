//! Splits a list into its objects while it arrives, so that ten thousand of them are never in memory together.
//!
//! ```text
//! {"apiVersion":"..","items":[{..},{..},{..}],"kind":"..","metadata":{"continue":"","resourceVersion":"195"}}
//!                             ^^^^ ^^^^ ^^^^ one at a time        everything else is the rest
//! ```
//!
//! The splitter follows brackets and strings and nothing else: each object and the rest are parsed by whoever
//! gets them.

/// Largest object, in bytes. etcd takes none over 1.5 MiB.
const LARGEST_ITEM: usize = 4 << 20;

/// Largest rest, in bytes.
const LARGEST_REST: usize = 64 << 10;

/// Why a list cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitFault {
    /// Brackets do not match, or there is something else than an object in `items`.
    #[error("it is no list in JSON")]
    Malformed,
    /// An object, or what is around the objects, is over its bound.
    #[error("an object of the list is over 4 MiB, or the list without them over 64 KiB")]
    TooLarge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Around the items.
    Rest,
    /// In the list of items, between two.
    Items,
    /// In an item.
    Item,
}

/// Takes the bytes of a list and gives its objects.
#[derive(Debug)]
pub struct ItemSplitter {
    place: Place,
    depth: u32,
    in_string: bool,
    is_escaped: bool,
    item: Vec<u8>,
    rest: Vec<u8>,
}

impl Default for ItemSplitter {
    fn default() -> Self {
        Self {
            place: Place::Rest,
            depth: 0,
            in_string: false,
            is_escaped: false,
            item: Vec::new(),
            rest: Vec::new(),
        }
    }
}

impl ItemSplitter {
    /// Takes the next bytes; `give` gets every object that they complete.
    ///
    /// # Errors
    /// The bytes are no list, or `give` fails.
    pub fn push<E: From<SplitFault>>(
        &mut self,
        bytes: &[u8],
        mut give: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for byte in bytes {
            if self.take(*byte)? {
                give(&self.item)?;
                self.item.clear();
            }
        }
        Ok(())
    }

    /// The list without its objects, once it is whole.
    ///
    /// # Errors
    /// It is not.
    pub fn finish(self) -> Result<Vec<u8>, SplitFault> {
        match (self.depth, self.place) {
            (0, Place::Rest) if !self.rest.is_empty() && !self.in_string => Ok(self.rest),
            _ => Err(SplitFault::Malformed),
        }
    }

    /// Whether an object is complete with this byte.
    fn take(&mut self, byte: u8) -> Result<bool, SplitFault> {
        let (buffer, bound) = match self.place {
            Place::Rest => (&mut self.rest, LARGEST_REST),
            Place::Items | Place::Item => (&mut self.item, LARGEST_ITEM),
        };
        if self.in_string {
            buffer.push(byte);
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return match buffer.len() > bound {
                true => Err(SplitFault::TooLarge),
                false => Ok(false),
            };
        }
        if self.place == Place::Items {
            match byte {
                b'{' => self.place = Place::Item,
                b']' => {
                    self.depth -= 1;
                    self.place = Place::Rest;
                    self.rest.push(byte);
                    return Ok(false);
                }
                b',' | b' ' | b'\n' | b'\r' | b'\t' => return Ok(false),
                _ => return Err(SplitFault::Malformed),
            }
        }
        let buffer = match self.place {
            Place::Rest => &mut self.rest,
            Place::Items | Place::Item => &mut self.item,
        };
        buffer.push(byte);
        if buffer.len() > bound {
            return Err(SplitFault::TooLarge);
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                let begins_items = self.place == Place::Rest
                    && byte == b'['
                    && self.depth == 1
                    && follows_items(&self.rest);
                self.depth += 1;
                if begins_items {
                    self.place = Place::Items;
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.checked_sub(1).ok_or(SplitFault::Malformed)?;
                // Items are at depth 2: in the object, in its list.
                if self.place == Place::Item && self.depth == 2 {
                    self.place = Place::Items;
                    return Ok(true);
                }
            }
            _ => {}
        }
        Ok(false)
    }
}

/// Whether the bracket at the end is the value of `items`.
fn follows_items(rest: &[u8]) -> bool {
    let before = rest.strip_suffix(b"[").unwrap_or(rest).trim_ascii_end();
    let key = before.strip_suffix(b":").map(<[u8]>::trim_ascii_end);
    key.is_some_and(|key| key.ends_with(b"\"items\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The objects of a list and the rest, pushed in parts of this length.
    fn split(text: &str, part: usize) -> Result<(Vec<String>, String), SplitFault> {
        let (mut splitter, mut items) = (ItemSplitter::default(), Vec::new());
        for bytes in text.as_bytes().chunks(part) {
            splitter.push(bytes, |item| {
                items.push(String::from_utf8(item.to_vec()).unwrap());
                Ok::<_, SplitFault>(())
            })?;
        }
        Ok((items, String::from_utf8(splitter.finish()?).unwrap()))
    }

    const LIST: &str = r#"{"apiVersion":"v1","items":[{"a":"]},{","b":[1,{"items":[2]}]} , {"c":"\"}"},{}],"kind":"L","metadata":{"continue":"","items":[7]}}"#;

    #[test]
    fn objects_are_given_one_at_a_time_and_the_rest_has_none() {
        for part in [1, 2, 7, LIST.len()] {
            let (items, rest) = split(LIST, part).unwrap();
            let expected = [
                r#"{"a":"]},{","b":[1,{"items":[2]}]}"#,
                r#"{"c":"\"}"}"#,
                "{}",
            ];
            assert_eq!(items, expected, "{part}");
            let rest: serde_json::Value = serde_json::from_str(&rest).unwrap();
            assert_eq!(rest["items"], serde_json::json!([]));
            assert_eq!(rest["metadata"]["items"], serde_json::json!([7]));
        }
        assert_eq!(split(r#"{"items":[],"kind":"L"}"#, 3).unwrap().0, [""; 0]);
        assert_eq!(split("{\n \"items\" : [ {} ]\n}", 1).unwrap().0, ["{}"]);
    }

    #[test]
    fn a_list_that_is_cut_or_is_none_is_an_error() {
        for end in 0..LIST.len() {
            assert_eq!(split(&LIST[..end], 8), Err(SplitFault::Malformed), "{end}");
        }
        for text in [r#"{"items":[1]}"#, r#"{"items":["a"]}"#, "}", "]", ""] {
            assert_eq!(split(text, 8), Err(SplitFault::Malformed), "{text}");
        }
    }

    /// Loss prevented: a server that never ends a string takes all memory.
    #[test]
    fn what_is_over_its_bound_is_refused() {
        let endless = format!("{{\"items\":[{{\"a\":\"{}", "x".repeat(LARGEST_ITEM + 1));
        assert_eq!(split(&endless, 1 << 16), Err(SplitFault::TooLarge));
        let endless = format!("{{\"kind\":\"{}", "x".repeat(LARGEST_REST + 1));
        assert_eq!(split(&endless, 1 << 16), Err(SplitFault::TooLarge));
    }

    proptest! {
        #[test]
        fn any_objects_come_out_as_they_went_in(
            texts in proptest::collection::vec(".{0,20}", 0..8), part in 1usize..40,
        ) {
            let objects: Vec<_> = texts.iter().map(|t| serde_json::json!({"t": t, t: [{}]})).collect();
            let list = serde_json::json!({"items": objects, "metadata": {"continue": texts.first()}});
            let (items, rest) = split(&list.to_string(), part).unwrap();
            let items: Vec<serde_json::Value> =
                items.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
            prop_assert_eq!(items, objects);
            let rest: serde_json::Value = serde_json::from_str(&rest).unwrap();
            prop_assert_eq!(&rest["metadata"], &list["metadata"]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in "[\\[\\]{}\",:a items\\\\]{0,80}") {
            let _ = split(&bytes, 3);
        }
    }
}

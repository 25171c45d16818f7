//! The elements of a list of Core, read one by one.

use super::quick::{JsonCursor, ListElement};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Gives the elements of a JSON array one by one, as long as each is an object that can be read. Whether it
/// came to the end.
pub fn objects<T: DeserializeOwned + ListElement>(text: &str, mut each: impl FnMut(T)) -> bool {
    let mut cursor = JsonCursor::new(text);
    if !cursor.take(b'[') {
        return false;
    }
    let mut more = !cursor.take(b']');
    while more {
        let mut quick = cursor;
        if let Some(element) = T::quick(&mut quick) {
            cursor = quick;
            each(element);
        } else {
            let text = serde_json::Deserializer::from_str(cursor.rest());
            let mut elements = text.into_iter::<Object<T>>();
            let Some(Ok(element)) = elements.next() else {
                return false;
            };
            cursor.skip(elements.byte_offset());
            each(element.0);
        }
        more = cursor.take(b',');
        if !more && !cursor.take(b']') {
            return false;
        }
    }
    cursor.is_at_end()
}

/// An object and nothing else: a list would be taken for one, field by field.
struct Object<T>(T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

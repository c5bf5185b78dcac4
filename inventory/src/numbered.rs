//! Maps whose keys are numbers. JSON writes them as texts, and serde reads such texts back as numbers only where it does
//! not have to look at the whole document first (`flatten`).

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};

struct Key(u8);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 255")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Key, E> {
                let wrong = |_| E::invalid_value(Unexpected::Unsigned(number), &self);
                u8::try_from(number).map(Key).map_err(wrong)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
                let wrong = |_| E::invalid_value(Unexpected::Str(text), &self);
                text.parse().map(Key).map_err(wrong)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Reads such a map from wherever it stands.
pub(crate) fn read<'de, D, V>(deserializer: D) -> Result<BTreeMap<u8, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct Entries<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
        type Value = BTreeMap<u8, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map by numbers from 0 to 255")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = BTreeMap::new();
            while let Some((Key(key), value)) = map.next_entry()? {
                all.insert(key, value);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_map(Entries(PhantomData))
}

//! The 32-byte names of things. A *digest* hashes bytes, a *key* hashes a recipe.

use std::fmt;
use std::str::FromStr;

/// Text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not 64 hexadecimal digits")]
pub struct NotHexadecimal(pub String);

macro_rules! name_of_32_bytes {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The first twelve digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..12].to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
        impl FromStr for $name {
            type Err = NotHexadecimal;
            fn from_str(text: &str) -> Result<Self, NotHexadecimal> {
                let hash = blake3::Hash::from_hex(text).map_err(|_| NotHexadecimal(text.to_owned()))?;
                Ok(Self(*hash.as_bytes()))
            }
        }
        impl From<blake3::Hash> for $name {
            fn from(hash: blake3::Hash) -> Self {
                Self(*hash.as_bytes())
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_of_32_bytes! {
    /// blake3 of an object's bytes: `b3sum` gives the same.
    Digest
}
name_of_32_bytes! {
    /// Names one stage over given inputs; see [`crate::plan`].
    ActionKey
}
name_of_32_bytes! {
    /// Names one stage over inputs that are themselves recipes; see [`crate::plan`].
    RecipeKey
}
name_of_32_bytes! {
    /// Names a row stage without its rows: what all its row keys have in common; see [`crate::plan`].
    Signature
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_text_parses_back() {
        let digest = Digest::from(blake3::hash(b"x"));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!("12".parse::<Digest>(), Err(NotHexadecimal("12".to_owned())));
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }
}

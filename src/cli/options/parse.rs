//! Parsers of values that several commands have. Each returns what is wrong with the text.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::cli::native;
use crate::clock::{parse_duration, show_duration};
use crate::transport::{DialAddress, ListenAddress};

/// Anything that reads itself and says why not.
pub fn any<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A whole number within bounds.
pub fn number(bounds: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        let number = text.parse().ok().filter(|n| bounds.contains(n));
        number.ok_or_else(|| {
            format!(
                "{text:?} is not a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            )
        })
    }
}

/// A duration within bounds.
pub fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let (from, to) = (show_duration(*bounds.start()), show_duration(*bounds.end()));
        match parse_duration(text) {
            Ok(time) if bounds.contains(&time) => Ok(time),
            Ok(_) => Err(format!("{text} is out of range: from {from} to {to}")),
            Err(error) => Err(format!("{error}; allowed is from {from} to {to}")),
        }
    }
}

/// A number within bounds that need not be whole.
pub fn decimal(bounds: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> {
    move |text| {
        let number = text.parse().ok().filter(|n| bounds.contains(n));
        number.ok_or_else(|| {
            let (from, to) = (bounds.start(), bounds.end());
            format!("{text:?} is not a number between {from} and {to}")
        })
    }
}

/// `on` or `off`.
pub fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

/// Where a server listens; its path is one of the operating system.
pub fn listen(text: &str) -> Result<ListenAddress, String> {
    Ok(match any(text)? {
        ListenAddress::Unix(path) => ListenAddress::Unix(native::path(&path.to_string_lossy())?),
        other => other,
    })
}

/// Where a server is found; its path is one of the operating system.
pub fn dial(text: &str) -> Result<DialAddress, String> {
    let native = |path: &std::path::Path| native::path(&path.to_string_lossy());
    Ok(match any(text)? {
        DialAddress::Unix(path) => DialAddress::Unix(native(&path)?),
        DialAddress::Hybrid { path, port } => DialAddress::Hybrid {
            path: native(&path)?,
            port,
        },
        other => other,
    })
}

/// A path, any but the empty one.
pub fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("an empty path".into());
    }
    native::path(text)
}

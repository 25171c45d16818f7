//! The settings of a fleet store that say where it is answered for over HTTP.

use super::options::{ConfigError, Settings};
use super::web_listen;
use crate::web::WebListen;

/// Where the fleet is answered for, if it is.
pub(super) fn configured(settings: &Settings) -> Result<Option<WebListen>, ConfigError> {
    let listen = web_listen::configured(settings, "fleet")?;
    if listen.is_some() && !settings.on_off("fleet")? {
        let what = "there is nothing to answer with fleet off";
        let key = "fleet_listen";
        return Err(ConfigError::new(settings.text(key).1, key, what));
    }
    Ok(listen)
}

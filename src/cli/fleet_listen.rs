//! The settings of `sense` that say where the fleet is answered for over HTTP.

use super::options::{ConfigError, Settings, parse};
use crate::listen::HttpAddress;
use crate::telemetry::scrape;
use crate::transport::CertificateFiles;
use crate::web::WebListen;

/// Settings that mean nothing without an address.
const OF_ADDRESS: [&str; 4] = [
    "fleet_tls_cert",
    "fleet_tls_key",
    "fleet_host",
    "fleet_token_file",
];

/// Where the fleet is answered for, if it is.
pub(super) fn configured(settings: &Settings) -> Result<Option<WebListen>, ConfigError> {
    let wrong = |key: &str, what: &str| Err(ConfigError::new(settings.text(key).1, key, what));
    let address: Option<HttpAddress> = settings.optional("fleet_listen", parse::any)?;
    let Some(address) = address else {
        return match OF_ADDRESS
            .iter()
            .find(|key| !settings.text(key).0.is_empty())
        {
            Some(key) => wrong(key, "needs fleet-listen"),
            None => Ok(None),
        };
    };
    if !settings.on_off("fleet")? {
        return wrong("fleet_listen", "there is nothing to answer with fleet off");
    }
    let file = |key| settings.optional_path(key);
    let tls = match (file("fleet_tls_cert")?, file("fleet_tls_key")?) {
        (Some(cert), Some(key)) => Some(CertificateFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => return wrong("fleet_tls_cert", "needs fleet-tls-key"),
        (None, Some(_)) => return wrong("fleet_tls_key", "needs fleet-tls-cert"),
    };
    if tls.is_none() && !address.is_local() {
        let needs = format!(
            "{address} is reached by other machines, and passwords and inventory must not cross a network as plain text: \
             it needs fleet-tls-cert and fleet-tls-key; without them listen on 127.0.0.1 or unix:PATH"
        );
        return wrong("fleet_listen", &needs);
    }
    let metrics = settings.optional("metrics", scrape::address)?;
    if matches!(&address, HttpAddress::Tcp(at) if Some(*at) == metrics && at.port() != 0) {
        return wrong(
            "fleet_listen",
            "is the address of metrics; it needs one of its own",
        );
    }
    let host = |text: &str| match WebListen::is_host(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is not a name such as fleet.example.org, without a port"
        )),
    };
    Ok(Some(WebListen {
        address,
        tls,
        token_file: file("fleet_token_file")?,
        hosts: settings.all("fleet_host", host)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::sense::tests::configured;

    /// The loss: the inventory of all tenants on a network as plain text.
    #[test]
    fn an_address_that_others_reach_needs_a_certificate() {
        let given = ["--vm", "a=unix:/a", "--deliver", "file:/o"];
        let listen = |more: &[&str]| {
            let config = configured(&[&given, more].concat());
            config
                .map(|config| config.fleet_listen)
                .map_err(|error| error.to_string())
        };
        let tls = ["--fleet-tls-cert", "/c", "--fleet-tls-key", "/k"];
        assert_eq!(listen(&[]), Ok(None));
        for address in [
            "127.0.0.1:9819",
            "localhost:9819",
            "[::1]:9819",
            "unix:/run/f.sock",
        ] {
            assert!(listen(&["--fleet-listen", address]).unwrap().is_some());
        }
        for address in ["0.0.0.0:9819", "[::]:9819", "10.0.0.7:9819"] {
            let error = listen(&["--fleet-listen", address]).unwrap_err();
            assert!(
                error.contains("--fleet-listen") && error.contains("fleet-tls-cert"),
                "{error}"
            );
            let with_tls = listen(&[&["--fleet-listen", address], &tls[..]].concat());
            assert!(with_tls.unwrap().unwrap().tls.is_some());
        }
        for (more, said) in [
            (
                &["--fleet-listen", "fleet.example.org:1"][..],
                "not unix:PATH",
            ),
            (
                &["--fleet-listen", "localhost:1", "--fleet", "off"],
                "fleet off",
            ),
            (
                &["--fleet-listen", "localhost:1", "--fleet-tls-key", "/k"],
                "needs fleet-tls-cert",
            ),
            (
                &["--fleet-listen", "localhost:1", "--fleet-tls-cert", "/c"],
                "needs fleet-tls-key",
            ),
            (
                &["--fleet-listen", "localhost:1", "--metrics", "1"],
                "address of metrics",
            ),
            (
                &["--fleet-listen", "localhost:1", "--fleet-host", "a:1"],
                "without a port",
            ),
            (&["--fleet-token-file", "/t"], "needs fleet-listen"),
        ] {
            let error = listen(more).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}

//! The settings that say where a service answers over HTTP: `fleet_*` of `sense`, `mirror_*` of `mirror`.

use super::options::{ConfigError, Settings, parse};
use crate::listen::HttpAddress;
use crate::telemetry::scrape;
use crate::transport::CertificateFiles;
use crate::web::WebListen;

/// Settings that mean nothing without an address, behind the first word of all of them.
const OF_ADDRESS: [&str; 4] = ["tls_cert", "tls_key", "host", "token_file"];

/// Where the service answers, if it does; `first` is the first word of its settings.
pub(super) fn configured(
    settings: &Settings,
    first: &str,
) -> Result<Option<WebListen>, ConfigError> {
    let key = |rest: &str| format!("{first}_{rest}");
    let flag = |rest: &str| format!("{first}-{rest}").replace('_', "-");
    let wrong = |rest: &str, what: &str| {
        let key = key(rest);
        Err(ConfigError::new(settings.text(&key).1, &key, what))
    };
    let address: Option<HttpAddress> = settings.optional(&key("listen"), parse::any)?;
    let Some(address) = address else {
        return match OF_ADDRESS
            .iter()
            .find(|rest| !settings.text(&key(rest)).0.is_empty())
        {
            Some(rest) => wrong(rest, &format!("needs {}", flag("listen"))),
            None => Ok(None),
        };
    };
    let file = |rest| settings.optional_path(&key(rest));
    let tls = match (file("tls_cert")?, file("tls_key")?) {
        (Some(cert), Some(key)) => Some(CertificateFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => return wrong("tls_cert", &format!("needs {}", flag("tls_key"))),
        (None, Some(_)) => return wrong("tls_key", &format!("needs {}", flag("tls_cert"))),
    };
    if tls.is_none() && !address.is_local() {
        let needs = format!(
            "{address} is reached by other machines, and passwords and inventory must not cross a network as plain text: \
             it needs {} and {}; without them listen on 127.0.0.1 or unix:PATH",
            flag("tls_cert"),
            flag("tls_key")
        );
        return wrong("listen", &needs);
    }
    let metrics = settings.optional("metrics", scrape::address)?;
    if matches!(&address, HttpAddress::Tcp(at) if Some(*at) == metrics && at.port() != 0) {
        return wrong(
            "listen",
            "is the address of metrics; it needs one of its own",
        );
    }
    let host = |text: &str| match WebListen::is_host(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} is not a name such as {first}.example.org, without a port"
        )),
    };
    Ok(Some(WebListen {
        address,
        tls,
        token_file: file("token_file")?,
        hosts: settings.all(&key("host"), host)?,
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

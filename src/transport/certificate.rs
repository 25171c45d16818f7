//! What a certificate says of its holder beside what webpki verifies: common names, extended key usages and
//! DNS names. Pure: DER bytes in, borrowed values out.
//!
//! ```text
//! Certificate    SEQUENCE { TBSCertificate, .. }
//! TBSCertificate SEQUENCE { [0] version, serial, algorithm, issuer, validity, subject, key, .., [3] extensions }
//! Extension      SEQUENCE { OID, BOOLEAN critical?, OCTET STRING }
//! ```
//!
//! Only certificates whose chain was verified are worth reading. Bytes that are no certificate give `None`,
//! never a certificate with less in it.

/// Tags of DER.
mod tag {
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const OCTET_STRING: u8 = 0x04;
    pub(super) const OID: u8 = 0x06;
    pub(super) const UTF8_STRING: u8 = 0x0c;
    pub(super) const PRINTABLE_STRING: u8 = 0x13;
    pub(super) const IA5_STRING: u8 = 0x16;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const VERSION: u8 = 0xa0;
    pub(super) const EXTENSIONS: u8 = 0xa3;
    pub(super) const DNS_NAME: u8 = 0x82;
}

/// id-at-commonName, 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// id-ce-subjectAltName, 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// id-ce-extKeyUsage, 2.5.29.37
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// The parts of a certificate that are read here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Holder<'a> {
    /// Common names of the subject; ordinary certificates have one at most.
    pub(super) common_names: Vec<&'a str>,
    /// Whether an extended key usage names client authentication. An absent extension names nothing.
    pub(super) is_client: bool,
    /// DNS names of the subject's alternative names.
    pub(super) dns_names: Vec<&'a str>,
}

impl<'a> Holder<'a> {
    /// Reads a whole certificate.
    pub(super) fn read(certificate: &'a [u8]) -> Option<Self> {
        let mut outer = Der(certificate);
        let mut certificate = Der(outer.expect(tag::SEQUENCE)?);
        let mut body = Der(certificate.expect(tag::SEQUENCE)?);
        body.optional(tag::VERSION)?;
        let (_serial, _algorithm, _issuer, _validity) =
            (body.next()?, body.next()?, body.next()?, body.next()?);
        let mut holder = Self::default();
        holder.read_subject(Der(body.expect(tag::SEQUENCE)?))?;
        let _key = body.next()?;
        while !body.0.is_empty() {
            let (tag, value) = body.next()?;
            if tag == tag::EXTENSIONS {
                holder.read_extensions(Der(Der(value).expect(tag::SEQUENCE)?))?;
            }
        }
        Some(holder)
    }

    fn read_subject(&mut self, mut names: Der<'a>) -> Option<()> {
        while !names.0.is_empty() {
            let mut set = Der(names.expect(tag::SET)?);
            while !set.0.is_empty() {
                let mut attribute = Der(set.expect(tag::SEQUENCE)?);
                let is_common_name = attribute.expect(tag::OID)? == COMMON_NAME;
                let (tag, value) = attribute.next()?;
                if is_common_name {
                    let is_text = matches!(
                        tag,
                        tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING
                    );
                    let text = is_text.then(|| std::str::from_utf8(value).ok())??;
                    self.common_names.push(text);
                }
            }
        }
        Some(())
    }

    fn read_extensions(&mut self, mut extensions: Der<'a>) -> Option<()> {
        while !extensions.0.is_empty() {
            let mut extension = Der(extensions.expect(tag::SEQUENCE)?);
            let id = extension.expect(tag::OID)?;
            extension.optional(tag::BOOLEAN)?;
            let value = extension.expect(tag::OCTET_STRING)?;
            match id {
                EXTENDED_KEY_USAGE => {
                    let mut usages = Der(Der(value).expect(tag::SEQUENCE)?);
                    while !usages.0.is_empty() {
                        self.is_client |= usages.expect(tag::OID)? == CLIENT_AUTH;
                    }
                }
                SUBJECT_ALT_NAME => {
                    let mut names = Der(Der(value).expect(tag::SEQUENCE)?);
                    while !names.0.is_empty() {
                        if let (tag::DNS_NAME, name) = names.next()? {
                            self.dns_names.push(std::str::from_utf8(name).ok()?);
                        }
                    }
                }
                _ => {}
            }
        }
        Some(())
    }
}

/// Values of DER, one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&short, rest) = rest.split_first()?;
        let (len, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            // Three bytes of length: no certificate of a handshake is longer.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
                let len = bytes
                    .iter()
                    .fold(0, |len, byte| len << 8 | usize::from(*byte));
                (len, rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// The content of the next value, which has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, value)| value)
    }

    /// Steps over the next value if it has this tag.
    fn optional(&mut self, tag: u8) -> Option<()> {
        if self.0.first() == Some(&tag) {
            self.next()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, KeyPair};

    fn certificate(params: &CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn client() -> CertificateParams {
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.distinguished_name = Default::default();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "o");
        let name = "kubevirt.io:system:client:vsock";
        let name = DnValue::PrintableString(name.try_into().unwrap());
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params
    }

    #[test]
    fn names_and_usages_are_read() {
        let der = certificate(&client());
        let holder = Holder::read(&der).unwrap();
        assert_eq!(holder.common_names, ["kubevirt.io:system:client:vsock"]);
        assert_eq!(holder.dns_names, ["a.example"]);
        assert!(holder.is_client);
    }

    #[test]
    fn a_certificate_without_the_usage_is_no_client() {
        let mut params = client();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        assert!(!Holder::read(&certificate(&params)).unwrap().is_client);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
        assert!(!Holder::read(&certificate(&params)).unwrap().is_client);
        params.extended_key_usages = Vec::new();
        assert!(!Holder::read(&certificate(&params)).unwrap().is_client);
    }

    #[test]
    fn a_certificate_that_is_cut_anywhere_is_none() {
        let der = certificate(&client());
        for len in 0..der.len() {
            assert_eq!(Holder::read(&der[..len]), None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..400, byte: u8, bytes: Vec<u8>) {
            let mut der = certificate(&client());
            let at = at % der.len();
            der[at] = byte;
            let _ = Holder::read(&der);
            let _ = Holder::read(&bytes);
        }
    }
}

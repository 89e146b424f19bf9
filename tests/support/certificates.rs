//! Certificates made for tests: nothing is kept, so nothing expires.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType, date_time_ymd,
};

/// A CA, in which servers or clients trust.
pub(crate) struct Ca {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// What a certificate is made to say.
pub(crate) struct Leaf {
    params: CertificateParams,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self, leaf: Leaf) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = leaf.params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

impl Leaf {
    /// Of a server on loopback.
    pub(crate) fn server() -> Self {
        let mut leaf = Self::server_of("localhost");
        leaf.params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        leaf
    }

    /// Of the server of this host.
    pub(crate) fn server_of(host: &str) -> Self {
        Self::new("a server", ExtendedKeyUsagePurpose::ServerAuth).dns(host)
    }

    /// Of a client with this common name.
    pub(crate) fn client(name: &str) -> Self {
        Self::new(name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn new(name: &str, usage: ExtendedKeyUsagePurpose) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.extended_key_usages.push(usage);
        Self { params }
    }

    pub(crate) fn uri(mut self, uri: &str) -> Self {
        self.params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        self
    }

    pub(crate) fn dns(mut self, name: &str) -> Self {
        self.params.subject_alt_names.push(SanType::DnsName(name.try_into().unwrap()));
        self
    }

    pub(crate) fn email(mut self, address: &str) -> Self {
        self.params.subject_alt_names.push(SanType::Rfc822Name(address.try_into().unwrap()));
        self
    }

    /// From the beginning of one day to that of another: year, month, day.
    #[allow(dead_code, reason = "not every program that has this needs it")]
    pub(crate) fn valid(mut self, from: (i32, u8, u8), until: (i32, u8, u8)) -> Self {
        self.params.not_before = date_time_ymd(from.0, from.1, from.2);
        self.params.not_after = date_time_ymd(until.0, until.1, until.2);
        self
    }

    /// Out of date for long.
    pub(crate) fn expired(mut self) -> Self {
        self.params.not_after = date_time_ymd(2020, 1, 1);
        self
    }

    /// Not valid for long.
    pub(crate) fn of_the_future(mut self) -> Self {
        self.params.not_before = date_time_ymd(3000, 1, 1);
        self
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

impl Pair {
    /// Writes both into `directory`; answers the paths of certificate and key.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (directory.join(format!("{name}.pem")), directory.join(format!("{name}-key.pem")));
        fs::write(&cert, &self.cert).unwrap();
        fs::write(&key, &self.key).unwrap();
        (cert, key)
    }
}

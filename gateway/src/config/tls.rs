//! TLS to a broker: what the configuration names, and the files that it names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::section::Section;

/// TLS to a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The only CA whose certificates are accepted, as PEM; left out, those that the system accepts.
    pub ca_file: Option<PathBuf>,
    /// How the gateway shows who it is.
    pub client: Option<ClientCertificate>,
}

/// A certificate of the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate and what leads to its CA, as PEM.
    pub cert_file: PathBuf,
    /// Its private key, as PEM.
    pub key_file: PathBuf,
}

/// A file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    /// The key that names it.
    pub key: &'static str,
    /// Which, why, and what it should be.
    pub message: String,
}

const CA: &str = "ca_file";
const CERTIFICATE: &str = "client_cert_file";
const KEY: &str = "client_key_file";

impl Tls {
    /// Reads the files, as they are now: a renewed certificate is used from the next connection on.
    ///
    /// # Errors
    /// Says which file is at fault, and why.
    pub fn client_config(&self) -> Result<ClientConfig, FileFault> {
        let fault = |key, message| FileFault { key, message };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| fault(CA, format!("TLS cannot be had: {error}")))?;
        let builder = match &self.ca_file {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(CA, path)? {
                    let unusable =
                        |error| fault(CA, format!("{} holds no usable CA: {error}", path.display()));
                    roots.add(certificate).map_err(unusable)?;
                }
                builder.with_root_certificates(roots)
            }
            None => builder.with_platform_verifier().map_err(|error| {
                let cure = "install ca-certificates, or set mqtt.ca_file";
                fault(CA, format!("the system's list of CAs cannot be read: {error}; {cure}"))
            })?,
        };
        let Some(own) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let certificates = certificates(CERTIFICATE, &own.cert_file)?;
        let (cert, key) = (own.cert_file.display(), own.key_file.display());
        let private = PrivateKeyDer::from_pem_file(&own.key_file).map_err(|error| {
            fault(KEY, format!("{key} cannot be read: {error}; it takes a private key as PEM"))
        })?;
        builder.with_client_auth_cert(certificates, private).map_err(|error| {
            fault(KEY, format!("{key} is not the key of the certificate in {cert}: {error}"))
        })
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let name = path.display();
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let message = match found {
        Ok(found) if !found.is_empty() => return Ok(found),
        Ok(_) => format!("{name} holds no certificate; it takes certificates as PEM"),
        Err(error) => format!("{name} cannot be read: {error}; it takes certificates as PEM"),
    };
    Err(FileFault { key, message })
}

/// Reads the keys of a broker whose URL asks for TLS, or does not. The files are looked at here, so that a wrong one is
/// named before anything starts.
pub(super) fn read(section: &mut Section<'_>, is_secure: bool, home: &Path) -> Option<Tls> {
    let mut file = |key| section.text(key).map(|text| home.join(text.text));
    let (ca_file, cert_file, key_file) = (file(CA), file(CERTIFICATE), file(KEY));
    if !is_secure {
        for key in [CA, CERTIFICATE, KEY].into_iter().filter(|key| section.has(key)) {
            section.fault(key, "has a meaning only with TLS; write `url = \"mqtts://…\"`");
        }
        return None;
    }
    let client = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(ClientCertificate { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            section.fault(CERTIFICATE, format!("is given without its key; add `{KEY}`"));
            None
        }
        (None, Some(_)) => {
            section.fault(KEY, format!("is given without its certificate; add `{CERTIFICATE}`"));
            None
        }
    };
    let tls = Tls { ca_file, client };
    if let Err(fault) = tls.client_config() {
        section.fault(fault.key, fault.message);
    }
    Some(tls)
}

//! Certificates for tests, made by the program `openssl`: a private CA and what it signs.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;

use crate::services::command;

/// A certificate and its private key, as PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A private CA.
#[derive(Clone, Debug)]
pub struct Authority {
    directory: PathBuf,
    own: Identity,
}

impl Authority {
    /// A CA of this name with its files in `directory`.
    ///
    /// # Errors
    /// openssl is not installed, or refuses.
    pub fn new(directory: &Path, name: &str) -> anyhow::Result<Authority> {
        std::fs::create_dir_all(directory)?;
        let own = identity(directory, name);
        let subject = format!("/CN={name}");
        openssl(
            &["req", "-x509", "-days", "30", "-subj", &subject, "-addext", "keyUsage=critical,keyCertSign"],
            &own.key,
            &own.certificate,
        )?;
        Ok(Authority { directory: directory.to_owned(), own })
    }

    /// The file that makes clients trust it.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.own.certificate
    }

    /// Signs a certificate of this name that is good for `names`, each `DNS:…` or `IP:…`; none for a client's.
    ///
    /// # Errors
    /// openssl refuses.
    pub fn sign(&self, name: &str, names: &[&str]) -> anyhow::Result<Identity> {
        let signed = identity(&self.directory, name);
        let request = self.directory.join(format!("{name}.csr"));
        openssl(&["req", "-new", "-subj", &format!("/CN={name}")], &signed.key, &request)?;
        let mut extensions = String::from("basicConstraints=critical,CA:FALSE\n");
        if !names.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(extensions, "subjectAltName={}", names.join(","));
        }
        let extensions_file = self.directory.join(format!("{name}.ext"));
        std::fs::write(&extensions_file, extensions)?;
        let mut sign = command("openssl", "openssl")?;
        sign.args(["x509", "-req", "-days", "30", "-CAcreateserial", "-in"]).arg(&request);
        sign.arg("-CA").arg(&self.own.certificate).arg("-CAkey").arg(&self.own.key);
        sign.arg("-extfile").arg(&extensions_file).arg("-out").arg(&signed.certificate);
        run(sign)?;
        Ok(signed)
    }
}

fn identity(directory: &Path, name: &str) -> Identity {
    let file = |extension| directory.join(format!("{name}.{extension}"));
    Identity { certificate: file("pem"), key: file("key") }
}

/// Makes a key, and a certificate or the request for one.
fn openssl(arguments: &[&str], key: &Path, out: &Path) -> anyhow::Result<()> {
    let mut command = command("openssl", "openssl")?;
    command.args(arguments).args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.arg("-keyout").arg(key).arg("-out").arg(out);
    run(command)?;
    // Keys that others may read are refused in some places.
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn run(mut command: std::process::Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().context("running openssl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?} ended with {}: {said}", output.status);
    Ok(())
}

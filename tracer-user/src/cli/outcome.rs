//! How a run ended, and the exit status that says so.

use std::process::ExitCode;

use super::output::say;
use crate::{capture::CaptureError, golang::GoError};

/// A run that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing at or above `--fail-on`.
    Healthy,
    /// Something was found.
    Findings,
    /// The host does not allow it; said already.
    NotAllowed,
    /// The user interrupted before anything was seen.
    Interrupted,
}

const HEALTHY: u8 = 0;
const FINDINGS: u8 = 1;
const UNUSABLE: u8 = 2;
const NOT_ALLOWED: u8 = 3;
const INTERRUPTED: u8 = 130;

/// The exit status of a run; an error is told on standard error.
pub(super) fn exit(result: anyhow::Result<Outcome>) -> ExitCode {
    ExitCode::from(match result {
        Ok(Outcome::Healthy) => HEALTHY,
        Ok(Outcome::Findings) => FINDINGS,
        Ok(Outcome::NotAllowed) => NOT_ALLOWED,
        Ok(Outcome::Interrupted) => INTERRUPTED,
        Err(error) => {
            match error.downcast_ref::<GoError>() {
                // It tells its source itself.
                Some(error) => say(&format!("gopulse: {error}")),
                None => say(&format!("gopulse: {error:#}")),
            }
            status_of(&error)
        }
    })
}

fn status_of(error: &anyhow::Error) -> u8 {
    if let Some(GoError::Unreadable { .. } | GoError::Memory { .. }) = error.downcast_ref() {
        return NOT_ALLOWED;
    }
    match error.downcast_ref::<CaptureError>() {
        // Naming a command that does not start is like naming a process that is not there.
        Some(CaptureError::Command { .. }) | None => UNUSABLE,
        Some(_) => NOT_ALLOWED,
    }
}

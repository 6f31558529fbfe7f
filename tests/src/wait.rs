//! Waiting for conditions instead of sleeping.

use std::{
    env,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::bail;

/// Looks every few milliseconds until `look` finds something, for as long as `within`, or so many times that
/// as `GOPULSE_SLOWNESS` says (a machine that is translated does less in a second).
///
/// # Errors
///
/// Says for `what` it waited in vain; or what `look` itself failed with.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let within = within.saturating_mul(slowness());
    let began = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if began.elapsed() > within {
            bail!("waited {within:?} in vain for {what}");
        }
        sleep(Duration::from_millis(5));
    }
}

fn slowness() -> u32 {
    let told = env::var("GOPULSE_SLOWNESS").ok();
    told.and_then(|times| times.parse().ok()).unwrap_or(1)
}

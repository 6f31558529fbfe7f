//! What the live scenarios and the tests of the command line stand on.
//!
//! A scenario takes its [`turn`], draws its waiting times ([`draw`]), starts Go [`services`] (some in a
//! network namespace of their own, [`netns`]), lets [`gopulse`] watch, and judges the [`report`].
//! What always holds: whatever a scenario starts or makes is gone when it ends, also when it fails,
//! and nothing sleeps where it can [`wait`] for a condition.

pub mod cases;
pub mod cgroup;
pub mod container;
pub mod draw;
pub mod gopulse;
pub mod held;
pub mod host;
pub mod http;
pub mod native;
pub mod netns;
pub mod packets;
pub mod podman;
pub mod process;
pub mod report;
pub mod services;
pub mod speaker;
pub mod streams;
pub mod trace_processor;
pub mod turn;
pub mod wait;
pub mod workspace;

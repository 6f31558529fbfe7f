//! The user half of gopulse.
//!
//! Data goes one way, and a stage imports only stages above it in this list: a source (`capture`,
//! `recording`) gives events, `model` makes a story of them, `detect` judges it, `report` tells it
//! and `export` hands it to other tools.

#![deny(unsafe_code)]

pub mod capabilities;
pub mod event;
pub mod plain;

pub mod golang;
pub mod host;
pub mod target;

pub mod http;
pub mod pcapng;

pub mod capture;
pub mod pcap;
pub mod recording;

pub mod model;

pub mod detect;

pub mod export;
pub mod report;

pub mod cli;

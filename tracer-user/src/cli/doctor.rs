//! `gopulse doctor`: what this host can trace and how, and what would mend what it cannot.

use std::{fs, io};

use clap::Args;

use tracer_ebpf::Config;

use super::{Outcome, output};
use crate::{
    capabilities,
    capture::{Attached, CaptureError},
    host::{btf, plan::Choice, privileges},
    plain::clean,
};

#[derive(Args)]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments) -> anyhow::Result<Outcome> {
    let attached = Attached::new(Config {
        packets: 1,
        timeline: 0,
    });
    output::result(None, |out, _| {
        kernel(out)?;
        rights(out)?;
        hooks(out, &attached)
    })?;
    Ok(match attached {
        Ok(attached) if attached.require().is_ok() => Outcome::Healthy,
        _ => Outcome::NotAllowed,
    })
}

fn line(out: &mut dyn io::Write, mark: &str, what: &str, found: &str) -> io::Result<()> {
    writeln!(out, "  {mark:<4} {what:<22} {}", clean(found))
}

fn kernel(out: &mut dyn io::Write) -> io::Result<()> {
    writeln!(out, "Host")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    line(
        out,
        "",
        "kernel",
        &format!("{} {}", release.trim(), std::env::consts::ARCH),
    )?;
    match btf::Btf::of_this_kernel() {
        Ok(_) => line(out, "yes", "types (BTF)", btf::VMLINUX)?,
        Err(error) => told(out, "no", "types (BTF)", &error.to_string())?,
    }
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(text) => {
            let mode = text
                .split(['[', ']'])
                .nth(1)
                .unwrap_or("unknown")
                .to_owned();
            let blocks = mode == "confidentiality";
            line(out, if blocks { "no" } else { "yes" }, "lockdown", &mode)?;
            if blocks {
                told(
                    out,
                    "",
                    "",
                    "it blocks every tracing program; boot with lockdown=integrity or without lockdown=",
                )?;
            }
        }
        Err(_) => line(
            out,
            "yes",
            "lockdown",
            "not in force (no securityfs to ask)",
        )?,
    }
    writeln!(out)
}

fn rights(out: &mut dyn io::Write) -> io::Result<()> {
    writeln!(out, "Privileges")?;
    for (capability, use_of) in privileges::NEEDED {
        let mark = match capabilities::have(capability) {
            Some(true) => "yes",
            Some(false) => "no",
            None => "?",
        };
        line(out, mark, &capability.to_string(), use_of)?;
    }
    let missing = privileges::NEEDED
        .iter()
        .any(|(capability, _)| capabilities::have(*capability) == Some(false));
    if missing {
        let setcap = privileges::setcap();
        told(out, "", "", "run it as root: sudo gopulse doctor")?;
        told(
            out,
            "",
            "",
            &format!("or give it to the program: sudo {setcap}"),
        )?;
    }
    writeln!(out)
}

fn hooks(out: &mut dyn io::Write, attached: &Result<Attached, CaptureError>) -> io::Result<()> {
    writeln!(out, "What can be seen, and by what")?;
    match attached {
        Ok(attached) => attached
            .choices
            .iter()
            .try_for_each(|choice| hook(out, choice)),
        Err(error) => told(out, "no", "nothing", &error.to_string()),
    }
}

fn hook(out: &mut dyn io::Write, choice: &Choice) -> io::Result<()> {
    match &choice.by {
        Some(by) => line(out, "yes", choice.want.name, by)?,
        None => {
            line(
                out,
                "no",
                choice.want.name,
                choice.want.without.unwrap_or("nothing works"),
            )?;
        }
    }
    for (way, why) in &choice.refused {
        told(out, "", "", &format!("not by {way}: {why}"))?;
    }
    Ok(())
}

/// A finding of several lines, the later ones under the first.
fn told(out: &mut dyn io::Write, mark: &str, what: &str, text: &str) -> io::Result<()> {
    for (index, part) in text.lines().enumerate() {
        let first = index == 0;
        line(
            out,
            if first { mark } else { "" },
            if first { what } else { "" },
            part.trim(),
        )?;
    }
    Ok(())
}

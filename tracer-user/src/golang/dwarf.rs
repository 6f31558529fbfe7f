//! The runtime's layout as the executable's own debug information tells it.
//!
//! In: the ELF file. Out: a [`Layout`], or nothing where there is no debug information (`-ldflags=-w`)
//! or where it lacks a field. Go writes DWARF 4 up to 1.24 and DWARF 5 from 1.25, mostly compressed,
//! and puts all types into the last unit, so that one is looked at first.

use std::{borrow::Cow, collections::HashMap};

use gimli::{AttributeValue, DebuggingInformationEntry, EndianSlice, LittleEndian};
use object::ObjectSection as _;

use super::layout::{Figures, Layout};

type Slice<'a> = EndianSlice<'a, LittleEndian>;
/// Field name to byte offset.
type Fields = HashMap<String, u32>;

/// Those after the first six are not in every version, or not in every program.
const STRUCTS: [&str; 11] = [
    "runtime.g",
    "runtime.m",
    "runtime.gobuf",
    "runtime.pollDesc",
    "runtime.sudog",
    "runtime.hchan",
    "runtime.maybeTraceablePtr",
    "runtime.p",
    "runtime.timers",
    "runtime.mstats",
    "runtime.gcControllerState",
];

/// Reads the layout from `file`'s debug information.
pub(super) fn layout<'a>(file: &impl object::Object<'a>) -> Option<Layout> {
    let load = |id: gimli::SectionId| -> Result<Cow<'_, [u8]>, gimli::Error> {
        Ok(file
            .section_by_name(id.name())
            .and_then(|section| section.uncompressed_data().ok())
            .unwrap_or_default())
    };
    let sections = gimli::DwarfSections::load(load).ok()?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let structs = structs(&dwarf).ok()?;
    let [g, m, gobuf, poll, sudog, hchan, traceable, ..] = STRUCTS.map(|name| structs.get(name));
    let (g, m, gobuf, poll, sudog, hchan) = (g?, m?, gobuf?, poll?, sudog?, hchan?);
    let address = traceable.and_then(|fields| fields.get("vu").copied());
    let pointed_at = |field: &str| sudog.get(field)?.checked_add(address.unwrap_or(0));
    let sched = g.get("sched")?;
    Some(Layout {
        stack_lo: *g.get("stack")?,
        stack_hi: g.get("stack")?.checked_add(8)?,
        m: *g.get("m")?,
        sched_sp: sched.checked_add(*gobuf.get("sp")?)?,
        sched_pc: sched.checked_add(*gobuf.get("pc")?)?,
        syscall_sp: *g.get("syscallsp")?,
        syscall_pc: *g.get("syscallpc")?,
        status: *g.get("atomicstatus")?,
        goid: *g.get("goid")?,
        wait_since: *g.get("waitsince")?,
        wait_reason: *g.get("waitreason")?,
        parent_goid: *g.get("parentGoid")?,
        go_pc: *g.get("gopc")?,
        start_pc: *g.get("startpc")?,
        labels: *g.get("labels")?,
        tracking_seq: *g.get("trackingSeq")?,
        m_procid: *m.get("procid")?,
        m_curg: *m.get("curg")?,
        m_locks: *m.get("locks")?,
        m_syscall_tick: m.get("syscalltick").copied(),
        poll_read_seq: *poll.get("rseq")?,
        poll_write_seq: *poll.get("wseq")?,
        waiting: *g.get("waiting")?,
        sudog_g: *sudog.get("g")?,
        sudog_elem: pointed_at("elem")?,
        sudog_waitlink: *sudog.get("waitlink")?,
        sudog_c: pointed_at("c")?,
        hchan_timer: hchan.get("timer").copied(),
        figures: figures(&structs),
    })
}

fn figures(structs: &HashMap<&'static str, Fields>) -> Option<Figures> {
    let of = |name: &str, field: &str| structs.get(name)?.get(field).copied();
    let timers = of("runtime.p", "timers")?;
    Some(Figures {
        // Up to 1.22 they were no struct of their own.
        p_timers: timers.checked_add(of("runtime.timers", "heap").unwrap_or(0))?,
        memstats_collections: of("runtime.mstats", "numgc")?,
        memstats_enabled: of("runtime.mstats", "enablegc")?,
        pacer_percent: of("runtime.gcControllerState", "gcPercent")?,
        pacer_limit: of("runtime.gcControllerState", "memoryLimit")?,
        pacer_live: of("runtime.gcControllerState", "heapMarked")?,
    })
}

/// The structs of [`STRUCTS`] by name; stops reading as soon as it has them all.
fn structs(dwarf: &gimli::Dwarf<Slice<'_>>) -> gimli::Result<HashMap<&'static str, Fields>> {
    let mut found = HashMap::new();
    let mut headers = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        headers.push(header);
    }
    for header in headers.into_iter().rev() {
        let unit = dwarf.unit(header)?;
        let mut entries = unit.entries();
        // The struct whose members are being read, and the depth it stands at.
        let mut open: Option<(&'static str, isize)> = None;
        while let Some(entry) = entries.next_dfs()? {
            let depth = entry.depth();
            if let Some((name, at)) = open {
                if depth == at + 1 && entry.tag() == gimli::DW_TAG_member {
                    if let Some((field, offset)) = member(dwarf, &unit, entry) {
                        found
                            .entry(name)
                            .or_insert_with(Fields::new)
                            .insert(field, offset);
                    }
                    continue;
                }
                if depth <= at {
                    open = None;
                    if found.len() == STRUCTS.len() {
                        return Ok(found);
                    }
                }
            }
            if entry.tag() == gimli::DW_TAG_structure_type
                && let Some(name) = name(dwarf, &unit, entry)
                && let Some(wanted) = STRUCTS.into_iter().find(|wanted| *wanted == name)
            {
                open = Some((wanted, depth));
            }
        }
    }
    Ok(found)
}

/// A struct member's name and offset.
fn member<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    unit: &gimli::Unit<Slice<'a>>,
    entry: &DebuggingInformationEntry<Slice<'a>>,
) -> Option<(String, u32)> {
    let offset = match entry.attr_value(gimli::DW_AT_data_member_location)? {
        AttributeValue::Udata(offset) => offset,
        other => other.udata_value()?,
    };
    Some((
        name(dwarf, unit, entry)?.into_owned(),
        u32::try_from(offset).ok()?,
    ))
}

fn name<'a>(
    dwarf: &gimli::Dwarf<Slice<'a>>,
    unit: &gimli::Unit<Slice<'a>>,
    entry: &DebuggingInformationEntry<Slice<'a>>,
) -> Option<Cow<'a, str>> {
    let value = entry.attr_value(gimli::DW_AT_name)?;
    dwarf
        .attr_string(unit, value)
        .ok()
        .map(|name| name.to_string_lossy())
}

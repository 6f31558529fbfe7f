//! The executable file behind a process, whatever became of its path.
//!
//! In: `/proc/PID/exe`, which leads to the very file that was started, also when it was deleted or
//! replaced since and when it lies in another mount namespace. Out: its bytes as the dynamic linker
//! would have relocated them at load bias 0, and the few facts of its ELF headers that we need.

use std::{fs::File, io, io::Read as _};

use object::{
    LittleEndian, Object as _, ObjectSection as _, ReadCache, RelocationFlags, elf,
    read::elf::{ElfFile64, ProgramHeader as _},
};

use super::GoError;
use crate::event::Pid;

/// A Go program's file.
pub(super) struct Executable {
    /// The file, with relative relocations applied.
    pub bytes: Vec<u8>,
    /// Where it was linked to start.
    pub entry: u64,
    /// It may be loaded anywhere.
    pub position_independent: bool,
    /// How its addresses and its bytes correspond.
    pub segments: Segments,
}

/// The parts of a file that are mapped into memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Segments(Vec<Segment>);

/// A part of the file that is mapped into memory (`PT_LOAD`).
#[derive(Clone, Copy, Debug)]
struct Segment {
    address: u64,
    offset: u64,
    size: u64,
}

/// The section that every Go program has since 1.13, stripped or not.
const BUILD_INFO: &str = ".go.buildinfo";
/// No Go program is larger; of what is, this much is read into memory and no more.
const LARGEST: u64 = 1 << 30;

impl Executable {
    /// Reads the program that `pid` runs; `None` where it is no Go program. Reads no more than the
    /// headers to find that out.
    pub(super) fn of_process(pid: Pid) -> Result<Option<Self>, GoError> {
        let path = format!("/proc/{pid}/exe");
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound
                if !std::fs::exists(format!("/proc/{pid}")).unwrap_or(false) =>
            {
                GoError::Gone { pid }
            }
            _ => GoError::Unreadable {
                path: path.clone(),
                source,
            },
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            // Kernel threads have no executable.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && std::fs::exists(format!("/proc/{pid}")).unwrap_or(false) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(unreadable(error)),
        };
        if !is_go(&file) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(LARGEST).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        Self::of_bytes(bytes)
            .map(Some)
            .map_err(|found| GoError::Program { pid, found })
    }

    /// The program in a file's bytes.
    pub(super) fn of_bytes(mut bytes: Vec<u8>) -> Result<Self, String> {
        let (entry, position_independent, segments, patches) = {
            let file = parse(&bytes)?;
            if file.elf_header().e_machine.get(LittleEndian) != elf::EM_X86_64 {
                return Err("it is not built for linux/amd64".to_owned());
            }
            let segments = Segments::of(&file);
            let patches = patches(&file, &segments);
            let independent = file.kind() == object::ObjectKind::Dynamic;
            (file.entry(), independent, segments, patches)
        };
        for (offset, value) in patches {
            if let Some(word) = bytes.get_mut(offset..offset.saturating_add(8)) {
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
        Ok(Self {
            bytes,
            entry,
            position_independent,
            segments,
        })
    }

    /// The file's headers and sections.
    pub(super) fn elf(&self) -> Result<ElfFile64<'_, LittleEndian>, String> {
        parse(&self.bytes)
    }

    /// Up to `length` bytes from `address` (as linked) on.
    pub(super) fn at(&self, address: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(self.segments.offset(address)?).ok()?;
        let end = start.saturating_add(length).min(self.bytes.len());
        self.bytes.get(start..end)
    }

    /// From `address` to the end of the section it lies in.
    pub(super) fn rest_of_section(&self, address: u64) -> Option<&[u8]> {
        let end = self
            .elf()
            .ok()?
            .sections()
            .map(|section| section.address()..section.address().saturating_add(section.size()))
            .find(|range| range.contains(&address))?
            .end;
        self.at(address, usize::try_from(end - address).ok()?)
    }
}

/// Whether a file has Go's build information, judged by its section headers alone.
fn is_go(file: &File) -> bool {
    let cache = ReadCache::new(file);
    object::File::parse(&cache).is_ok_and(|file| {
        file.sections()
            .any(|section| section.name().is_ok_and(|name| name.ends_with(BUILD_INFO)))
    })
}

fn parse(bytes: &[u8]) -> Result<ElfFile64<'_, LittleEndian>, String> {
    ElfFile64::parse(bytes)
        .map_err(|error| format!("it is no whole ELF file for linux/amd64 ({error})"))
}

impl Segments {
    fn of(file: &ElfFile64<'_, LittleEndian>) -> Self {
        Self(
            file.elf_program_headers()
                .iter()
                .filter(|header| header.p_type(LittleEndian) == elf::PT_LOAD)
                .map(|header| Segment {
                    address: header.p_vaddr(LittleEndian),
                    offset: header.p_offset(LittleEndian),
                    size: header.p_filesz(LittleEndian),
                })
                .collect(),
        )
    }

    /// Where `address` (as linked) lies in the file.
    pub(super) fn offset(&self, address: u64) -> Option<u64> {
        self.0.iter().find_map(|segment| {
            let within = address.checked_sub(segment.address)?;
            (within < segment.size).then(|| segment.offset.checked_add(within))?
        })
    }
}

/// The words the dynamic linker fills in: some linkers leave them zero in a position-independent file,
/// and Go's tables of itself are full of them.
fn patches(file: &ElfFile64<'_, LittleEndian>, segments: &Segments) -> Vec<(usize, i64)> {
    let relative = RelocationFlags::Elf {
        r_type: elf::R_X86_64_RELATIVE,
    };
    file.dynamic_relocations()
        .into_iter()
        .flatten()
        .filter(|(_, relocation)| relocation.flags() == relative)
        .filter_map(|(address, relocation)| {
            let offset = usize::try_from(segments.offset(address)?).ok()?;
            Some((offset, relocation.addend()))
        })
        .collect()
}

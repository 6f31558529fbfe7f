//! The few machine instructions of the runtime that tell where it keeps things.
//!
//! A stripped executable has no symbol for `runtime.allgs` and none for the thread-local `g`, but its
//! functions can still be found by name (they are needed for stack traces), and two of them begin by
//! loading exactly these. Only the encodings that Go's assembler and linker emit for them on amd64 are
//! understood; anything else gives `None`, never a guess.

/// Decodes `runtime.stackcheck`, whose first act is to load `g` (`src/runtime/asm_amd64.s`). Gives
/// where `g` lies, in bytes from the thread's FS base. Linkers settle that number when they link an
/// executable, dynamic or not; only shared libraries load it from a table.
pub(super) fn tls_offset(code: &[u8]) -> Option<i32> {
    match *code {
        // mov %fs:disp32, %reg: linked to a fixed address.
        [0x64, 0x48, 0x8b, modrm, 0x25, a, b, c, d, ..] if modrm & 0xc7 == 0x04 => {
            Some(i32::from_le_bytes([a, b, c, d]))
        }
        // mov $imm32, %reg; mov %fs:(%reg), %reg: position-independent.
        [0x48, 0xc7, modrm, a, b, c, d, 0x64, 0x48, 0x8b, ..] if modrm & 0xf8 == 0xc0 => {
            Some(i32::from_le_bytes([a, b, c, d]))
        }
        _ => None,
    }
}

/// Where the runtime keeps its Ps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Processors {
    /// `runtime.gomaxprocs`.
    pub max: u64,
    /// `runtime.allp`.
    pub all: u64,
}

/// Decodes `runtime.procresize` (`src/runtime/proc.go`): it begins by loading `gomaxprocs`, 32 bits wide, and
/// the first loads of three words of one slice are the length, the capacity and the pointer of `allp`.
pub(super) fn processors(code: &[u8], address: u64) -> Option<Processors> {
    let max = code
        .windows(7)
        .zip(address..)
        .find_map(|(bytes, at)| match *bytes {
            // mov disp32(%rip), %reg, with a 32-bit register; behind a prefix it is a wider one.
            [before, 0x8b, modrm, a, b, c, d] if before & 0xf0 != 0x40 && modrm & 0xc7 == 0x05 => {
                Some(relative(at + 1, 6, [a, b, c, d]))
            }
            _ => None,
        })?;
    let loads: Vec<u64> = word_loads(code, address).collect();
    let all = loads.windows(3).find_map(|loads| match *loads {
        [length, capacity, pointer]
            if capacity.checked_sub(pointer) == Some(16)
                && length.checked_sub(pointer) == Some(8) =>
        {
            Some(pointer)
        }
        _ => None,
    })?;
    Some(Processors { max, all })
}

/// Decodes `runtime.gcTrigger.test` (`src/runtime/mgc.go`), which first of all compares `memstats.enablegc`
/// with false. Gives its address.
pub(super) fn collector_enabled(code: &[u8], address: u64) -> Option<u64> {
    code.windows(7)
        .zip(address..)
        .find_map(|(bytes, at)| match *bytes {
            // cmpb $0, disp32(%rip).
            [0x80, 0x3d, a, b, c, d, 0] => Some(relative(at, 7, [a, b, c, d])),
            _ => None,
        })
}

/// Decodes `runtime.gcinit` (`src/runtime/mgc.go`), which calls a method of `gcController`, and so loads its
/// address into the register of the first argument. Gives that address.
pub(super) fn pacer(code: &[u8], address: u64) -> Option<u64> {
    code.windows(7)
        .zip(address..)
        .find_map(|(bytes, at)| match *bytes {
            // lea disp32(%rip), %rax.
            [0x48, 0x8d, 0x05, a, b, c, d] => Some(relative(at, 7, [a, b, c, d])),
            _ => None,
        })
}

/// Decodes `runtime.allgadd`, whose first three loads from memory are the capacity, length and pointer
/// of `runtime.allgs`, which it is about to append to (`src/runtime/proc.go`). Gives the address of the
/// pointer.
pub(super) fn allgs(code: &[u8], address: u64) -> Option<u64> {
    let mut loads = word_loads(code, address);
    let (capacity, length, pointer) = (loads.next()?, loads.next()?, loads.next()?);
    (capacity.checked_sub(pointer) == Some(16) && length.checked_sub(pointer) == Some(8))
        .then_some(pointer)
}

/// What is loaded from fixed places into 64-bit registers, in the order of the code.
fn word_loads(code: &[u8], address: u64) -> impl Iterator<Item = u64> {
    code.windows(7)
        .zip(address..)
        .filter_map(|(bytes, at)| match *bytes {
            // mov disp32(%rip), %reg, with a 64-bit register.
            [0x48 | 0x4c, 0x8b, modrm, a, b, c, d] if modrm & 0xc7 == 0x05 => {
                Some(relative(at, 7, [a, b, c, d]))
            }
            _ => None,
        })
}

/// The target of a displacement from the end of an instruction of `length` bytes at `address`.
fn relative(address: u64, length: u64, displacement: [u8; 4]) -> u64 {
    address
        .wrapping_add(length)
        .wrapping_add_signed(i64::from(i32::from_le_bytes(displacement)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_load_g_are_understood() {
        let fixed = [
            0x64, 0x48, 0x8b, 0x04, 0x25, 0xf8, 0xff, 0xff, 0xff, 0x48, 0x39, 0x60, 0x08,
        ];
        assert_eq!(tls_offset(&fixed), Some(-8));
        let independent = [
            0x48, 0xc7, 0xc1, 0xa0, 0xff, 0xff, 0xff, 0x64, 0x48, 0x8b, 0x01,
        ];
        assert_eq!(tls_offset(&independent), Some(-0x60));
    }

    #[test]
    fn the_number_of_ps_and_their_list_are_found_by_how_they_are_loaded() {
        let load = |wide: bool, target: u8, at: u8| {
            let length = if wide { 7 } else { 6 };
            let displacement = i32::from(target) - i32::from(at) - length;
            let mut code = if wide { vec![0x48] } else { Vec::new() };
            code.extend([0x8b, 0x15]);
            code.extend(displacement.to_le_bytes());
            code
        };
        let mut code = vec![0x90];
        code.extend(load(false, 200, 1));
        // Another global first, then length, capacity and pointer of the slice at 100.
        for (nth, target) in [50, 108, 116, 100, 116].into_iter().enumerate() {
            code.extend(load(true, target, 7 + 7 * nth as u8));
        }
        let found = Processors { max: 200, all: 100 };
        assert_eq!(processors(&code, 0), Some(found));
    }

    #[test]
    fn unknown_code_is_not_guessed_at() {
        assert_eq!(tls_offset(&[0x90; 16]), None);
        assert_eq!(tls_offset(&[]), None);
        assert_eq!(allgs(&[0x90; 64], 0), None);
        assert_eq!(processors(&[0x90; 64], 0), None);
        assert_eq!(collector_enabled(&[0x90; 64], 0), None);
        assert_eq!(pacer(&[0x90; 64], 0), None);
        // Three loads, but not of a slice's words.
        let loads = [0x48, 0x8b, 0x0d, 0, 0, 0, 0].repeat(3);
        assert_eq!(allgs(&loads, 0), None);
    }
}

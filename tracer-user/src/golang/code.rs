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

/// Decodes `runtime.allgadd`, whose first three loads from memory are the capacity, length and pointer
/// of `runtime.allgs`, which it is about to append to (`src/runtime/proc.go`). Gives the address of the
/// pointer.
pub(super) fn allgs(code: &[u8], address: u64) -> Option<u64> {
    let mut loads = code.windows(7).zip(address..).filter_map(|(bytes, at)| {
        match *bytes {
            // mov disp32(%rip), %reg, with a 64-bit register.
            [0x48 | 0x4c, 0x8b, modrm, a, b, c, d] if modrm & 0xc7 == 0x05 => {
                Some(relative(at, 7, [a, b, c, d]))
            }
            _ => None,
        }
    });
    let (capacity, length, pointer) = (loads.next()?, loads.next()?, loads.next()?);
    (capacity.checked_sub(pointer) == Some(16) && length.checked_sub(pointer) == Some(8))
        .then_some(pointer)
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
    fn unknown_code_is_not_guessed_at() {
        assert_eq!(tls_offset(&[0x90; 16]), None);
        assert_eq!(tls_offset(&[]), None);
        assert_eq!(allgs(&[0x90; 64], 0), None);
        // Three loads, but not of a slice's words.
        let loads = [0x48, 0x8b, 0x0d, 0, 0, 0, 0].repeat(3);
        assert_eq!(allgs(&loads, 0), None);
    }
}

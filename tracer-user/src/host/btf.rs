//! The kernel's description of itself: `/sys/kernel/btf/vmlinux`.
//!
//! From it come the offsets of struct members, the names of enum values and the number of arguments
//! of a tracepoint, so that no kernel version is ever compared. The format is that of
//! `Documentation/bpf/btf.rst`. Types are found by scanning once (about 5 ms) and read when asked
//! for. A file that is not what it says is an error, never a panic.

use std::{collections::HashMap, fs, path::Path};

use super::HostError;

/// Where the running kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Types nest (struct in union in struct); deeper than this is no kernel.
const DEPTH: usize = 16;

/// Kinds of types (`BTF_KIND_…`).
pub(super) mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(in crate::host) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(in crate::host) const PTR: u32 = 2;
    pub(in crate::host) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// The types of a kernel.
pub struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type begins; id 0 is void.
    types: Vec<usize>,
    /// Structs and unions, typedefs, enums and functions, each by kind and name.
    names: HashMap<(u32, u64), u32>,
}

/// One type's fixed part.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    kind: u32,
    length: usize,
    /// The kind's flag: members carry bit-field sizes.
    flag: bool,
    /// A size or another type.
    other: u32,
}

impl Btf {
    /// The running kernel's.
    ///
    /// # Errors
    /// Where the kernel was built without BTF or the file cannot be read.
    pub fn of_this_kernel() -> Result<Self, HostError> {
        Self::open(Path::new(VMLINUX))
    }

    /// Another kernel's, from a file in the same form.
    ///
    /// # Errors
    /// Where the file cannot be read or is not BTF.
    pub fn open(path: &Path) -> Result<Self, HostError> {
        let bytes = fs::read(path).map_err(|source| HostError::Btf {
            path: path.to_owned(),
            why: source.to_string(),
        })?;
        Self::parse(bytes).ok_or_else(|| HostError::Btf {
            path: path.to_owned(),
            why: "it is not in BPF Type Format".to_owned(),
        })
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        if u16_at(&bytes, 0)? != MAGIC {
            return None;
        }
        let header = u32_at(&bytes, 4)? as usize;
        let first = header.checked_add(u32_at(&bytes, 8)? as usize)?;
        let end = first.checked_add(u32_at(&bytes, 12)? as usize)?;
        let strings = header.checked_add(u32_at(&bytes, 16)? as usize)?;
        let mut this = Self {
            bytes,
            strings,
            types: vec![0],
            names: HashMap::new(),
        };
        let mut at = first;
        while at < end {
            let id = u32::try_from(this.types.len()).ok()?;
            let found = this.type_at(at)?;
            this.types.push(at);
            let kind = if found.kind == kind::UNION {
                kind::STRUCT
            } else {
                found.kind
            };
            if matches!(
                kind,
                kind::STRUCT | kind::ENUM | kind::ENUM64 | kind::TYPEDEF | kind::FUNC
            ) {
                let name = this.name(u32_at(&this.bytes, at)?)?;
                if !name.is_empty() {
                    let kind = if kind == kind::ENUM64 {
                        kind::ENUM
                    } else {
                        kind
                    };
                    let key = (kind, hash(name));
                    this.names.entry(key).or_insert(id);
                }
            }
            at = at.checked_add(12)?.checked_add(tail(found)?)?;
        }
        Some(this)
    }

    /// Bytes from the beginning of struct `name` to the member at `path`, such as `thread.fsbase`.
    /// Members of anonymous structs and unions are found as in C.
    #[must_use]
    pub fn offset(&self, name: &str, path: &str) -> Option<u32> {
        let mut id = self.id(kind::STRUCT, name)?;
        let mut bits = 0;
        for part in path.split('.') {
            let (member, at) = self.member(id, part, 0)?;
            bits += at;
            id = member;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// How many arguments the tracepoint passes; `None` where this kernel does not have it.
    #[must_use]
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let typedef = self.id(kind::TYPEDEF, &format!("btf_trace_{name}"))?;
        let pointer = self.resolve(self.get(typedef)?.other)?;
        let proto = self.get(pointer)?.other;
        let proto = self.get(proto)?;
        // The first argument is the tracepoint's own `void *`.
        (proto.kind == kind::FUNC_PROTO).then(|| proto.length.saturating_sub(1))
    }

    /// Whether the kernel has a function of this name that is not inlined away.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.id(kind::FUNC, name).is_some()
    }

    /// The id of the type of that kind and name.
    pub(super) fn id(&self, kind: u32, name: &str) -> Option<u32> {
        self.names.get(&(kind, hash(name))).copied()
    }

    /// The values of an enum by number, such as `skb_drop_reason`.
    #[must_use]
    pub fn enum_names(&self, name: &str) -> HashMap<u32, String> {
        let found = self.id(kind::ENUM, name).and_then(|id| self.get(id));
        let Some(found) = found else {
            return HashMap::new();
        };
        let size = if found.kind == kind::ENUM64 { 12 } else { 8 };
        (0..found.length)
            .filter_map(|index| {
                let at = found.at + 12 + index * size;
                let name = self.name(u32_at(&self.bytes, at)?)?;
                Some((u32_at(&self.bytes, at + 4)?, name.to_owned()))
            })
            .collect()
    }

    /// The type of member `name` and its place in bits.
    fn member(&self, id: u32, name: &str, depth: usize) -> Option<(u32, u32)> {
        let found = self.get(self.resolve(id)?)?;
        if depth > DEPTH || !matches!(found.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        (0..found.length).find_map(|index| {
            let at = found.at + 12 + index * 12;
            let member = self.name(u32_at(&self.bytes, at)?)?;
            let id = u32_at(&self.bytes, at + 4)?;
            let place = u32_at(&self.bytes, at + 8)?;
            let bits = if found.flag {
                place & 0x00ff_ffff
            } else {
                place
            };
            if member == name {
                Some((id, bits))
            } else if member.is_empty() {
                let (id, inner) = self.member(id, name, depth + 1)?;
                Some((id, bits + inner))
            } else {
                None
            }
        })
    }

    /// Behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..DEPTH {
            let found = self.get(id)?;
            match found.kind {
                kind::TYPEDEF | kind::CONST | kind::VOLATILE | kind::RESTRICT | kind::TYPE_TAG => {
                    id = found.other;
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn get(&self, id: u32) -> Option<Type> {
        (id != 0).then_some(())?;
        self.type_at(*self.types.get(id as usize)?)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = u32_at(&self.bytes, at + 4)?;
        Some(Type {
            at,
            kind: (info >> 24) & 0x1f,
            length: (info & 0xffff) as usize,
            flag: info >> 31 == 1,
            other: u32_at(&self.bytes, at + 8)?,
        })
    }

    fn name(&self, offset: u32) -> Option<&str> {
        let start = self.strings.checked_add(offset as usize)?;
        let rest = self.bytes.get(start..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    }
}

/// Bytes that follow a type's fixed part.
fn tail(of: Type) -> Option<usize> {
    Some(match of.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => of.length * 12,
        kind::ENUM | kind::FUNC_PROTO => of.length * 8,
        kind::PTR..=kind::TYPE_TAG => 0,
        _ => return None, // a kind from the future: its length is not known
    })
}

/// FNV-1a: the table is ours and short-lived.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_structs_are_found_through_anonymous_members() {
        let Ok(btf) = Btf::of_this_kernel() else {
            return; // no BTF on this kernel: `doctor` says so
        };
        assert_eq!(btf.offset("sock_common", "skc_daddr"), Some(0));
        assert_eq!(btf.offset("sock_common", "skc_dport"), Some(12));
        assert_eq!(btf.offset("sock", "__sk_common.skc_family"), Some(16));
        assert!(
            btf.offset("task_struct", "thread.fsbase")
                .is_some_and(|at| at > 1000)
        );
        assert_eq!(btf.offset("task_struct", "no_such_member"), None);
        assert_eq!(btf.tracepoint_arguments("inet_sock_set_state"), Some(3));
        assert_eq!(btf.tracepoint_arguments("no_such_tracepoint"), None);
        assert!(
            btf.enum_names("skb_drop_reason")
                .values()
                .any(|name| name.contains("NETFILTER"))
        );
    }

    #[test]
    fn bytes_that_are_no_btf_are_refused() {
        assert!(Btf::parse(vec![]).is_none());
        assert!(
            Btf::parse(vec![
                0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0
            ])
            .is_none()
        );
    }
}

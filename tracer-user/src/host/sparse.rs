//! The kernel's types as far as programs are attached by them, for aya.
//!
//! aya finds a tracepoint or a function by its name, in types that it has understood from end to end, and
//! searches all of them for each program: together some 40 ms of CPU time. In: our own reading of the same
//! types, and the hooks of the plan. Out: BTF in which the types of those hooks have the ids that they have in
//! the kernel, and every other one is a pointer to nothing.

use std::collections::BTreeMap;

use super::{
    btf::{Btf, kind},
    plan::WANTS,
};

/// Bytes of the header.
const HEADER: u32 = 24;
/// Bytes of a type that is a pointer, a typedef or a function.
const TYPE: usize = 12;

/// What of `kernel` [`WANTS`] is attached by, as a file in BPF Type Format.
#[must_use]
pub fn sparse(kernel: &Btf) -> Vec<u8> {
    let hooks = WANTS.iter().flat_map(|want| want.ways).copied().flatten();
    let named: BTreeMap<usize, (u32, String)> = hooks
        .filter_map(|hook| {
            let (kind, name) = hook.kernel_type()?;
            Some((kernel.id(kind, &name)? as usize, (kind, name)))
        })
        .collect();
    let last = named.last_key_value().map_or(0, |(id, _)| *id);
    let mut types = Vec::with_capacity(last * TYPE);
    let mut strings = vec![0];
    for (id, (kind, name)) in named {
        while types.len() < (id - 1) * TYPE {
            push(&mut types, 0, kind::PTR);
        }
        push(&mut types, strings.len(), kind);
        strings.extend(name.into_bytes());
        strings.push(0);
    }
    let (types_length, strings_length) = (types.len() as u32, strings.len() as u32);
    let words = [HEADER, 0, types_length, types_length, strings_length];
    let mut file = vec![0x9f, 0xeb, 1, 0];
    file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    file.extend(types);
    file.extend(strings);
    file
}

/// A type without members, of type 0.
fn push(types: &mut Vec<u8>, name: usize, kind: u32) {
    for word in [name as u32, kind << 24, 0] {
        types.extend(word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use aya_obj::btf::{Btf as AyaBtf, BtfKind};

    use super::*;

    #[test]
    fn aya_finds_the_hooks_of_the_plan_where_the_kernel_has_them() {
        let Ok(kernel) = Btf::of_this_kernel() else {
            return; // no BTF on this kernel: `doctor` says so
        };
        let whole = AyaBtf::from_sys_fs().unwrap();
        let sparse = AyaBtf::parse(&sparse(&kernel), Default::default()).unwrap();
        let id = |btf: &AyaBtf, kind, name: &str| btf.id_by_type_name_kind(name, kind).ok();
        let hooks = WANTS.iter().flat_map(|want| want.ways).copied().flatten();
        let mut found = 0;
        for (kind, name) in hooks.filter_map(|hook| hook.kernel_type()) {
            let kind = match kind {
                kind::TYPEDEF => BtfKind::Typedef,
                _ => BtfKind::Func,
            };
            assert_eq!(id(&sparse, kind, &name), id(&whole, kind, &name), "{name}");
            found += usize::from(id(&sparse, kind, &name).is_some());
        }
        assert!(found > 10, "{found}");
    }
}

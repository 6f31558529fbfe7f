//! Where this kernel keeps what the programs read.

use tracer_ebpf::KernelOffsets;

use super::{HostError, btf::Btf};

/// The offsets, from the kernel's own BTF.
///
/// # Errors
/// Where a member is missing: the kernel's structures changed.
pub fn offsets(btf: &Btf) -> Result<KernelOffsets, HostError> {
    let of = |structure: &'static str, member: &'static str| {
        btf.offset(structure, member)
            .ok_or(HostError::Offset { structure, member })
    };
    let thread = of("task_struct", "thread")?;
    Ok(KernelOffsets {
        skc_family: of("sock_common", "skc_family")?,
        skc_state: of("sock_common", "skc_state")?,
        skc_num: of("sock_common", "skc_num")?,
        skc_dport: of("sock_common", "skc_dport")?,
        skc_daddr: of("sock_common", "skc_daddr")?,
        skc_rcv_saddr: of("sock_common", "skc_rcv_saddr")?,
        skc_v6_daddr: of("sock_common", "skc_v6_daddr")?,
        skc_v6_rcv_saddr: of("sock_common", "skc_v6_rcv_saddr")?,
        skc_net: of("sock_common", "skc_net")?,
        net_inum: of("net", "ns.inum")?,
        sk_protocol: of("sock", "sk_protocol")?,
        sk_err: of("sock", "sk_err")?,
        inet_sport: of("inet_sock", "inet_sport")?,
        srtt_us: of("tcp_sock", "srtt_us")?,
        total_retrans: of("tcp_sock", "total_retrans")?,
        copied_seq: of("tcp_sock", "copied_seq")?,
        rcv_nxt: of("tcp_sock", "rcv_nxt")?,
        chrono_type: of("tcp_sock", "chrono_type")?,
        chrono_start: of("tcp_sock", "chrono_start")?,
        chrono_stat: of("tcp_sock", "chrono_stat")?,
        skb_sk: of("sk_buff", "sk")?,
        skb_head: of("sk_buff", "head")?,
        skb_network_header: of("sk_buff", "network_header")?,
        task_tgid: of("task_struct", "tgid")?,
        // x86 keeps the FS base in the thread; elsewhere Go has the goroutine in a register.
        task_fsbase: thread + btf.offset("thread_struct", "fsbase").unwrap_or(0),
        task_files: of("task_struct", "files")?,
        files_fdt: of("files_struct", "fdt")?,
        fdtable_fd: of("fdtable", "fd")?,
        file_private_data: of("file", "private_data")?,
        file_inode: of("file", "f_inode")?,
        inode_mode: of("inode", "i_mode")?,
        inode_number: of("inode", "i_ino")?,
        socket_sk: of("socket", "sk")?,
        task_pid: of("task_struct", "pid")?,
        task_state: of("task_struct", "__state").or_else(|_| of("task_struct", "state"))?,
        task_prio: of("task_struct", "prio")?,
        // What a kernel does not have is not asked for.
        task_throttled: btf.offset("task_struct", "throttled").unwrap_or(0),
        task_cfs_rq: btf.offset("task_struct", "se.cfs_rq").unwrap_or(0),
        cfs_rq_throttle_count: btf.offset("cfs_rq", "throttle_count").unwrap_or(0),
        task_ran: of("task_struct", "se.sum_exec_runtime")?,
        task_ran_before: of("task_struct", "se.prev_sum_exec_runtime")?,
        task_signal: of("task_struct", "signal")?,
        signal_live: of("signal_struct", "live")?,
        skb_dst: of("sk_buff", "_skb_refdst")?,
        dst_dev: of("dst_entry", "dev").or_else(|_| of("dst_entry", "dev_rcu"))?,
        device_net: of("net_device", "nd_net")?,
        _pad: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_every_member_the_programs_read() {
        let Ok(btf) = Btf::of_this_kernel() else {
            return; // no BTF on this kernel: `doctor` says so
        };
        let offsets = offsets(&btf).expect("offsets");
        assert_eq!((offsets.skc_daddr, offsets.skc_rcv_saddr), (0, 4));
    }
}

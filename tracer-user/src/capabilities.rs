//! What our threads may do to the host, and giving up what nothing needs any more.
//!
//! In: the [`Step`]s that are still to come. Out: a thread with the capabilities(7) that those need and no
//! others. They belong to each thread for itself and are handed on to the threads that it starts, so a thread
//! gives up what it was handed as the first thing it does. What always holds: what was given up does not
//! come back, neither by asking for it nor by running a program that has it (`PR_SET_NO_NEW_PRIVS`).
//!
//! What loading and attaching take is in [`crate::host::privileges`].

use caps::{CapSet, Capability, CapsHashSet};

/// Something that is done, or may be, when every probe is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reads and writes the maps of our programs.
    Maps,
    /// Attaches to CPUs that come on line, to the ends of system calls.
    LateProbes,
    /// Puts uprobes into programs that are started: rarely, so for each it is [`raised`].
    Uprobes,
    /// Reads other users' memory, executables and tables of files.
    Processes,
    /// Makes a socket in the network namespace of a process.
    Namespaces,
    /// Connects to the Unix socket of somebody else's endpoint.
    Endpoints,
    /// Opens the files that processes have mapped, also those that only they can see.
    Libraries,
    /// Reads where the kernel's functions lie.
    KernelSymbols,
    /// Has the kernel count for how long our programs run: now and then, so for each time it is [`raised`].
    Counts,
    /// Ends the command that we started, whoever it runs as by then.
    Command,
    /// Reads the recordings, captures and dumps that were named, whoever they belong to.
    Files,
}

/// What the kernel asks for each step. Each was found by leaving it out on 6.18; what older kernels ask for
/// besides is named.
const NEEDED: [(Step, &[Capability]); 11] = [
    // Since 5.19 whoever has the map's descriptor may; before, any bpf(2) takes it where
    // kernel.unprivileged_bpf_disabled is set.
    (Step::Maps, &[Capability::CAP_BPF]),
    // What is attached late is loaded late; perf_event_open(2) of a CPU.
    (
        Step::LateProbes,
        &[Capability::CAP_BPF, Capability::CAP_PERFMON],
    ),
    // perf_event_open(2) of a uprobe: CAP_PERFMON from 5.8 on, and CAP_SYS_ADMIN again from 6.16 on and in
    // what it was ported to, because a probe in the middle of an instruction harms the program.
    (
        Step::Uprobes,
        &[
            Capability::CAP_BPF,
            Capability::CAP_PERFMON,
            Capability::CAP_SYS_ADMIN,
        ],
    ),
    // /proc/PID/fd is a directory that only its owner may list, and an executable may be unreadable to
    // others; process_vm_readv(2), /proc/PID/exe and /proc/PID/ns ask as ptrace(2) does.
    (
        Step::Processes,
        &[Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH],
    ),
    // setns(2).
    (Step::Namespaces, &[Capability::CAP_SYS_ADMIN]),
    // connect(2) takes the right to write to the socket's file.
    (Step::Endpoints, &[Capability::CAP_DAC_OVERRIDE]),
    // /proc/PID/map_files; before 5.9 it was CAP_SYS_ADMIN.
    (Step::Libraries, &[Capability::CAP_CHECKPOINT_RESTORE]),
    // /proc/kallsyms shows zeroes without it.
    (Step::KernelSymbols, &[Capability::CAP_SYSLOG]),
    // bpf(2) with BPF_ENABLE_STATS.
    (Step::Counts, &[Capability::CAP_SYS_ADMIN]),
    // kill(2) of another user's process, such as that of `sudo -u NAME COMMAND`.
    (Step::Command, &[Capability::CAP_KILL]),
    (Step::Files, &[Capability::CAP_DAC_READ_SEARCH]),
];

/// Steps that are rare enough to have what they alone need at hand only meanwhile.
const RARE: [Step; 2] = [Step::Uprobes, Step::Counts];

/// What may stand in for what is not held, as `capabilities(7)` has it.
const STAND_INS: [(Capability, Capability); 4] = [
    (Capability::CAP_BPF, Capability::CAP_SYS_ADMIN),
    (Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN),
    (
        Capability::CAP_CHECKPOINT_RESTORE,
        Capability::CAP_SYS_ADMIN,
    ),
    (
        Capability::CAP_DAC_READ_SEARCH,
        Capability::CAP_DAC_OVERRIDE,
    ),
];

/// Whether this thread may do what `capability` is for; `None` where it cannot tell.
#[must_use]
pub fn have(capability: Capability) -> Option<bool> {
    let held = caps::read(None, CapSet::Effective).ok()?;
    Some(by(capability, &held).is_some())
}

/// By which of those that are held `capability` is had.
fn by(capability: Capability, held: &CapsHashSet) -> Option<Capability> {
    let stand_in = STAND_INS.iter().find(|(needed, _)| *needed == capability);
    [Some(capability), stand_in.map(|(_, stand_in)| *stand_in)]
        .into_iter()
        .flatten()
        .find(|capability| held.contains(capability))
}

/// Keeps in this thread, and in those that it starts from now on, what `steps` need: at hand, except for what
/// the [rare](RARE) ones alone need, which has to be [`raised`].
///
/// # Errors
///
/// In words. The kernel refuses nobody to have less; a sandbox around us may.
pub fn keep(steps: &[Step]) -> Result<(), String> {
    let words = |error: caps::errors::CapsError| error.to_string();
    let held = caps::read(None, CapSet::Permitted).map_err(words)?;
    let had = |steps: &[Step]| -> CapsHashSet {
        needed(steps)
            .filter_map(|needed| by(needed, &held))
            .collect()
    };
    let kept = had(steps);
    let at_hand = steps.iter().filter(|step| !RARE.contains(step));
    let at_hand: Vec<Step> = at_hand.copied().collect();
    // Nothing may be effective that is not permitted, so the order is this one.
    caps::set(None, CapSet::Effective, &had(&at_hand)).map_err(words)?;
    caps::clear(None, CapSet::Inheritable).map_err(words)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(words)?;
    nix::sys::prctl::set_no_new_privs().map_err(|errno| errno.to_string())
}

/// Does `work` with what `step` needs at hand, as far as it was kept, and puts it away again.
pub fn raised<T>(step: Step, work: impl FnOnce() -> T) -> T {
    let before = caps::read(None, CapSet::Effective);
    if let (Ok(before), Ok(held)) = (&before, caps::read(None, CapSet::Permitted)) {
        let steps = [step];
        let raised = needed(&steps).filter_map(|needed| by(needed, &held));
        let raised = raised.chain(before.iter().copied()).collect();
        // Where it fails the kernel refuses the work, and says why.
        let _ = caps::set(None, CapSet::Effective, &raised);
    }
    let done = work();
    if let Ok(before) = before {
        let _ = caps::set(None, CapSet::Effective, &before);
    }
    done
}

fn needed(steps: &[Step]) -> impl Iterator<Item = Capability> {
    NEEDED
        .iter()
        .filter(|(step, _)| steps.contains(step))
        .flat_map(|(_, capabilities)| *capabilities)
        .copied()
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    /// What `look` comes to in a thread that keeps `steps`.
    fn keeping<T: Send>(steps: &[Step], look: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                keep(steps).unwrap();
                look()
            });
            thread.join().unwrap()
        })
    }

    fn of_this_thread(set: CapSet) -> CapsHashSet {
        caps::read(None, set).unwrap()
    }

    #[test]
    fn a_thread_keeps_what_its_steps_need_and_the_others_keep_theirs() {
        let before = of_this_thread(CapSet::Permitted);
        let steps = [Step::Maps, Step::Processes];
        let kept = keeping(&steps, || {
            assert_eq!(
                of_this_thread(CapSet::Effective),
                of_this_thread(CapSet::Permitted)
            );
            of_this_thread(CapSet::Permitted)
        });
        let wanted: CapsHashSet = needed(&steps)
            .filter(|needed| before.contains(needed))
            .collect();
        assert_eq!(kept, wanted);
        assert_eq!(of_this_thread(CapSet::Permitted), before);
    }

    #[test]
    fn what_is_rarely_needed_is_at_hand_only_then() {
        let admin = || of_this_thread(CapSet::Effective).contains(&Capability::CAP_SYS_ADMIN);
        let may = of_this_thread(CapSet::Permitted).contains(&Capability::CAP_SYS_ADMIN);
        keeping(&[Step::Maps, Step::Uprobes], || {
            assert!(!admin());
            assert_eq!(raised(Step::Uprobes, admin), may);
            assert!(!admin());
        });
        keeping(&[Step::Maps], || assert!(!raised(Step::Uprobes, admin)));
    }

    #[test]
    fn a_wider_capability_stands_in_for_one_that_is_not_held() {
        use Capability::{CAP_BPF, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN};
        let both = CapsHashSet::from([CAP_BPF, CAP_SYS_ADMIN, CAP_DAC_OVERRIDE]);
        assert_eq!(by(CAP_BPF, &both), Some(CAP_BPF));
        assert_eq!(by(CAP_DAC_READ_SEARCH, &both), Some(CAP_DAC_OVERRIDE));
        assert_eq!(
            by(CAP_BPF, &CapsHashSet::from([CAP_SYS_ADMIN])),
            Some(CAP_SYS_ADMIN)
        );
        assert_eq!(by(CAP_SYS_ADMIN, &CapsHashSet::from([CAP_BPF])), None);
    }

    #[test]
    fn what_was_given_up_does_not_come_back() {
        keeping(&[], || {
            assert!(of_this_thread(CapSet::Permitted).is_empty());
            let child = thread::spawn(|| keep(&[Step::Processes, Step::Maps]).unwrap());
            child.join().unwrap();
            assert!(caps::raise(None, CapSet::Effective, Capability::CAP_BPF).is_err());
            let sees = std::process::Command::new("grep")
                .args(["-E", "^(CapPrm|NoNewPrivs):", "/proc/self/status"])
                .output()
                .unwrap();
            let sees = String::from_utf8(sees.stdout).unwrap();
            assert_eq!(sees, "CapPrm:\t0000000000000000\nNoNewPrivs:\t1\n");
        });
    }

    #[test]
    fn what_is_read_of_other_users_needs_the_step_that_says_so() {
        if !nix::unistd::geteuid().is_root() {
            return; // others' processes are closed to us either way
        }
        let mut child = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--clear-groups", "sleep", "60"])
            .spawn()
            .unwrap();
        let pid = child.id();
        let of_nobody = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains("Name:\tsleep") && status.contains("65534")
        };
        while !of_nobody() {
            thread::yield_now();
        }
        let look = || {
            [
                fs::read_dir(format!("/proc/{pid}/fd")).is_ok(),
                fs::read_link(format!("/proc/{pid}/exe")).is_ok(),
                fs::read(format!("/proc/{pid}/maps")).is_ok_and(|maps| !maps.is_empty()),
                fs::read_link(format!("/proc/{pid}/ns/net")).is_ok(),
            ]
        };
        let without = keeping(&[Step::Maps], look);
        let with = keeping(&[Step::Processes], look);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((without, with), ([false; 4], [true; 4]));
    }
}

//! What threads did on the scheduler, told against what the kernel counts itself.
//!
//! The process is stopped while it is counted, at the beginning and at the end, so that nothing of it
//! moves between the kernel's count and ours: `/proc/PID/task/TID/schedstat` (time on CPUs and on run
//! queues), `status` (switches) and the cgroup's `cpu.stat` (throttling).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use gopulse_tests::{
    draw::Draw,
    gopulse::Watch,
    process::Process,
    services,
    turn::{Turn, skip},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tracer_user::{
    event::{Event, Fact, Thread},
    model::TICK,
    recording::Reader,
};

/// What the kernel's clock of a run queue and ours may differ by at each end of a measurement: it is read
/// at most once a step, and the signal that stops the process takes its time.
const SLACK: Duration = Duration::from_millis(4);
/// A wake-up that preempts whoever runs is the last time the kernel reads its clock before the switch
/// (`rq_clock_skip_update`): until the other CPU gets the interrupt, it books what the preempted thread
/// still runs to the one that waits. On a virtual machine that takes a tenth of a millisecond. So of one
/// thread the two times together agree, and of all threads together each does.
const SKIPPED: Duration = Duration::from_micros(150);
/// From a thread's way onto a run queue, where the kernel's count begins, until its `sched_wakeup`, where
/// ours does, lies the interrupt that is sent to the other CPU; on a virtual machine that takes microseconds.
const SENT: Duration = Duration::from_micros(5);

/// What the kernel counts of a thread.
#[derive(Clone, Copy, Debug)]
struct Counts {
    on_cpu: Duration,
    /// Runnable and not running, throttled or not (`sched_info.run_delay`).
    waiting: Duration,
    voluntary: u64,
    involuntary: u64,
}

/// A process that ran only while it was watched.
struct Watched {
    events: Vec<Event>,
    before: BTreeMap<u32, Counts>,
    after: BTreeMap<u32, Counts>,
    /// What the hypervisor took meanwhile of the CPUs: running for us, for the kernel nothing.
    stolen: Duration,
}

/// Starts the service that keeps the scheduler busy.
fn busy(arguments: &[&str]) -> anyhow::Result<Process> {
    let mut process = Process::start(Command::new(services::program("threads")?).args(arguments))?;
    process.line("ready ")?;
    Ok(process)
}

/// Records a stopped process, which `runs` for a while.
fn watch(pid: u32, runs: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Watched> {
    freeze(pid)?;
    let (before, stolen) = (counts(pid)?, stolen()?);
    let directory = tempfile::tempdir()?;
    let into = directory.path().join("recording");
    let path = into.to_str().context("a path that is no text")?;
    let watch = Watch::start(&[
        "record",
        "--pid",
        &pid.to_string(),
        "-d",
        "100s",
        "-o",
        path,
    ])?;
    wait::until(
        "the first word of its threads",
        Duration::from_secs(10),
        || {
            let told = events(&into).unwrap_or_default();
            let is_thread = |event: &Event| matches!(event.fact, Fact::Thread(_));
            Ok(told.iter().any(is_thread).then_some(()))
        },
    )?;
    signal(pid, Signal::SIGCONT)?;
    runs()?;
    freeze(pid)?;
    let (after, stolen) = (counts(pid)?, self::stolen()? - stolen);
    watch.stop()?;
    let events = events(&into)?;
    for event in &events {
        assert!(!matches!(event.fact, Fact::Lost { .. }), "{event:?}");
    }
    Ok(Watched {
        events,
        before,
        after,
        stolen,
    })
}

fn events(recording: &Path) -> anyhow::Result<Vec<Event>> {
    Ok(Reader::open(recording)?.collect())
}

/// The `steal` of all CPUs together, see proc_stat(5), and a tick that is not counted yet.
fn stolen() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let steal = stat.split_whitespace().nth(8).context("no steal")?;
    Ok(Duration::from_millis(10 * steal.parse::<u64>()?))
}

fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    kill(Pid::from_raw(pid.cast_signed()), signal).context("the process is gone")
}

/// Stops every thread of a process.
fn freeze(pid: u32) -> anyhow::Result<()> {
    signal(pid, Signal::SIGSTOP)?;
    wait::until("a stopped process", Duration::from_secs(10), || {
        let stopped = |tid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status"));
            status.is_ok_and(|status| status.contains("State:\tT"))
        };
        Ok(threads(pid)?.iter().all(stopped).then_some(()))
    })
}

fn threads(pid: u32) -> anyhow::Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().parse()?));
    names.collect()
}

fn counts(pid: u32) -> anyhow::Result<BTreeMap<u32, Counts>> {
    let of = |tid: u32| {
        let file = |name| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}"));
        let schedstat = file("schedstat")?;
        let mut times = schedstat.split_whitespace().map(str::parse);
        let mut time = || anyhow::Ok(Duration::from_nanos(times.next().context("no time")??));
        let status = file("status")?;
        let count = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            anyhow::Ok(line.context("no count")?.trim().parse()?)
        };
        let counts = Counts {
            on_cpu: time()?,
            waiting: time()?,
            voluntary: count("voluntary_ctxt_switches:")?,
            involuntary: count("nonvoluntary_ctxt_switches:")?,
        };
        anyhow::Ok((tid, counts))
    };
    threads(pid)?.into_iter().map(of).collect()
}

/// Waits until a process has had the CPUs for so long.
fn until_it_ran(pid: u32, time: Duration) -> anyhow::Result<()> {
    let ran = || {
        anyhow::Ok(
            counts(pid)?
                .values()
                .map(|each| each.on_cpu)
                .sum::<Duration>(),
        )
    };
    let enough = ran()? + time;
    wait::until("CPU time", Duration::from_secs(60), || {
        Ok((ran()? >= enough).then_some(()))
    })
}

fn near(told: Duration, counted: Duration, slack: Duration) -> bool {
    told.abs_diff(counted) <= counted / 100 + slack
}

impl Watched {
    /// Each thread as it was told last, and when.
    fn told(&self) -> BTreeMap<u32, (u64, &Thread)> {
        let told = self.events.iter().filter_map(|event| match &event.fact {
            Fact::Thread(thread) => Some((thread.tid, (event.at.0, thread))),
            _ => None,
        });
        told.collect()
    }

    /// Each time a thread was told to have ended.
    fn ended(&self) -> Vec<(u64, &Thread)> {
        let ended = self.events.iter().filter_map(|event| match &event.fact {
            Fact::Thread(thread) if thread.ended => Some((event.at.0, thread)),
            _ => None,
        });
        ended.collect()
    }

    /// Every thread's sums are the time that it was watched.
    fn check_sums(&self) {
        for (at, thread) in self.told().values() {
            let wall = Duration::from_nanos(at - thread.since.0);
            assert!(
                near(all(thread), wall, Duration::ZERO),
                "{wall:?} {thread:?}"
            );
        }
    }

    /// Those threads that were there all the time agree with the kernel's own counts.
    fn check_counts(&self) {
        let (told, slack) = (self.told(), SLACK + self.stolen);
        let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
        // What is booked to another thread stays in the sum, but for those that were not there all the time.
        let is_counted = |tid: &u32| self.before.contains_key(tid) && self.after.contains_key(tid);
        let all_are = told.keys().all(is_counted);
        let mut booked_elsewhere = Duration::ZERO;
        for (tid, after) in &self.after {
            let Some(before) = self.before.get(tid) else {
                continue;
            };
            let (_, thread) = told[tid];
            let told = (thread.voluntary, thread.involuntary);
            let counted = (
                after.voluntary - before.voluntary,
                after.involuntary - before.involuntary,
            );
            assert_eq!(told, counted, "{thread:?}");
            let times = |times: u64| u32::try_from(times).unwrap_or(u32::MAX);
            let on_cpu = after.on_cpu - before.on_cpu;
            let runnable = on_cpu + after.waiting - before.waiting;
            let waited = thread.run_queue() + thread.throttled;
            let sent = SENT * times(counted.0);
            assert!(
                near(thread.on_cpu + waited, runnable, slack + sent),
                "{runnable:?} {thread:?}"
            );
            let skipped = SKIPPED * times(counted.0 + counted.1);
            assert!(
                near(thread.on_cpu, on_cpu, slack + skipped),
                "{on_cpu:?} {thread:?}"
            );
            ours += thread.on_cpu;
            theirs += on_cpu;
            if !all_are {
                booked_elsewhere += skipped;
            }
        }
        assert!(
            ours.abs_diff(theirs) < theirs / 20 + slack + booked_elsewhere,
            "{ours:?} {theirs:?}"
        );
    }
}

fn all(thread: &Thread) -> Duration {
    thread.on_cpu + thread.run_queue() + thread.throttled + thread.blocked()
}

#[test]
fn sums_are_what_proc_counts_and_samples_are_the_cpu_time() -> anyhow::Result<()> {
    let name = "sums of threads";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let time = Draw::new(name).millis(3000..5000);
    let service = busy(&["-spin", "3", "-sleep", "2", "-pipes", "1"])?;
    let neighbour = busy(&["-spin", "1"])?;
    let pid = service.pid();
    let before = counts(neighbour.pid())?;
    let watched = watch(pid, || until_it_ran(pid, time))?;
    watched.check_sums();
    watched.check_counts();

    let told = watched.told();
    let on_cpu: Duration = told.values().map(|(_, thread)| thread.on_cpu).sum();
    let samples = watched
        .events
        .iter()
        .filter(|event| matches!(&event.fact, Fact::Sampled(sample) if sample.pid == pid));
    let samples = u32::try_from(samples.count())?;
    // Chance gives a few percent; a virtual CPU that was taken away catches up on its ticks at once.
    let sampled = TICK * samples;
    assert!(
        sampled.abs_diff(on_cpu) < on_cpu / 8,
        "{sampled:?} {on_cpu:?}"
    );
    assert!(told.values().any(|(_, thread)| thread.migrations > 0));
    // Five want two CPUs: long waits stand out, and name one of us or the neighbour.
    let by: Vec<u32> = watched
        .events
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::Waited(waited) => Some(waited.by.as_ref()?.pid),
            _ => None,
        })
        .collect();
    assert!(by.contains(&pid) && by.contains(&neighbour.pid()), "{by:?}");

    let neighbours = watched
        .events
        .iter()
        .rev()
        .find_map(|event| match &event.fact {
            Fact::Neighbours(told) => Some(&told.busiest),
            _ => None,
        });
    let (_, comm, time) = neighbours
        .and_then(|busiest| busiest.iter().find(|(pid, ..)| *pid == neighbour.pid()))
        .context("the neighbour was not met")?;
    let after = counts(neighbour.pid())?;
    let sum = |counts: &BTreeMap<u32, Counts>| counts.values().map(|c| c.on_cpu).sum::<Duration>();
    let most = sum(&after) - sum(&before);
    assert_eq!(comm, "threads");
    assert!(
        *time <= most + most / 8 && *time >= most / 2,
        "{time:?} {most:?}"
    );
    Ok(())
}

/// A cgroup with a quota, removed when dropped.
struct Quota(PathBuf);

impl Quota {
    /// `None` where no hierarchy has the controller.
    fn new(quota: Duration, period: Duration) -> anyhow::Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let root = mounts.lines().find_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let [_, place, kind, options, ..] = fields[..] else {
                return None;
            };
            let first = kind == "cgroup" && options.split(',').any(|option| option == "cpu");
            first.then(|| PathBuf::from(place))
        });
        let Some(root) = root else {
            return Ok(None);
        };
        let group = Self(root.join(format!("gopulse-test-{}", std::process::id())));
        fs::create_dir(&group.0)?;
        group.write("cpu.cfs_period_us", &period.as_micros().to_string())?;
        group.write("cpu.cfs_quota_us", &quota.as_micros().to_string())?;
        Ok(Some(group))
    }

    fn write(&self, file: &str, what: &str) -> anyhow::Result<()> {
        fs::write(self.0.join(file), what).with_context(|| format!("cannot write {file}"))
    }

    fn throttled(&self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(self.0.join("cpu.stat"))?;
        let time = stat
            .lines()
            .find_map(|line| line.strip_prefix("throttled_time "));
        Ok(Duration::from_nanos(time.context("no time")?.parse()?))
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // A process that was just killed leaves a moment later.
        let _ = wait::until("an empty cgroup", Duration::from_secs(5), || {
            Ok(fs::remove_dir(&self.0).ok())
        });
    }
}

#[test]
fn throttled_time_is_what_the_cgroup_counts() -> anyhow::Result<()> {
    let name = "throttled time";
    let Some(_turn) = Turn::take(name, &[]) else {
        return Ok(());
    };
    let period = Duration::from_millis(100);
    // Little enough to be used up on a busy machine too.
    let quota = Draw::new(name).millis(5..12);
    let Some(group) = Quota::new(quota, period)? else {
        skip(name, "no cgroup v1 hierarchy has the cpu controller");
        return Ok(());
    };
    // One thread, so that the time its cgroup is stopped is the time it is.
    let shell = Process::start(Command::new("sh").args(["-c", "while :; do :; done"]))?;
    freeze(shell.pid())?;
    group.write("cgroup.procs", &shell.pid().to_string())?;
    let before = group.throttled()?;
    let watched = watch(shell.pid(), || {
        wait::until("throttling", Duration::from_secs(60), || {
            let enough = group.throttled()? - before > Duration::from_secs(2);
            Ok(enough.then_some(()))
        })
    })?;
    watched.check_sums();
    watched.check_counts();
    let counted = group.throttled()? - before;
    let (_, thread) = watched.told()[&shell.pid()];
    // Once it may go on it may still have to wait for a CPU, which nothing tells apart.
    assert!(
        thread.throttled + SLACK >= counted - counted / 50,
        "{counted:?} {thread:?}"
    );
    assert!(
        thread.throttled <= counted + counted / 10 + SLACK,
        "{counted:?} {thread:?}"
    );
    drop(shell);
    Ok(())
}

#[test]
fn threads_that_live_for_a_millisecond_are_told_one_and_all() -> anyhow::Result<()> {
    const THREADS: usize = 3000;
    let Some(_turn) = Turn::take("brief threads", &[]) else {
        return Ok(());
    };
    let mut service = busy(&["-brief", &THREADS.to_string()])?;
    let watched = watch(service.pid(), || {
        wait::until("the last thread", Duration::from_secs(60), || {
            Ok(service.stdout().contains("done").then_some(()))
        })?;
        service.line("done").map(drop)
    })?;
    watched.check_sums();
    watched.check_counts();
    let mut missing: BTreeMap<u32, i32> = BTreeMap::new();
    for line in service.stdout().lines() {
        if let Some(tid) = line.strip_prefix("thread ") {
            *missing.entry(tid.parse()?).or_default() += 1;
        }
    }
    assert_eq!(missing.values().sum::<i32>(), i32::try_from(THREADS)?);
    for (at, thread) in watched.ended() {
        let wall = Duration::from_nanos(at - thread.since.0);
        assert!(near(all(thread), wall, Duration::ZERO), "{thread:?}");
        if let Some(count) = missing.get_mut(&thread.tid) {
            *count -= 1;
            assert_eq!(thread.comm, "threads");
            assert!(
                wall >= Duration::from_millis(1) && thread.voluntary >= 2,
                "{thread:?}"
            );
        }
    }
    missing.retain(|_, count| *count != 0);
    assert!(missing.is_empty(), "not told: {missing:?}");
    Ok(())
}

#[test]
fn a_thread_that_calls_exec_goes_on_under_the_id_of_its_process() -> anyhow::Result<()> {
    let Some(_turn) = Turn::take("a target that calls exec", &[]) else {
        return Ok(());
    };
    let mut service = busy(&["-exec"])?;
    let pid = service.pid();
    let mut caller = 0;
    let watched = watch(pid, || {
        caller = service.line("exec ")?.parse()?;
        until_it_ran(pid, Duration::from_millis(1500))
    })?;
    watched.check_sums();
    let (ended, old) = *watched
        .ended()
        .iter()
        .find(|(_, thread)| thread.tid == caller)
        .context("the caller's end was not told")?;
    assert_eq!(old.pid, pid);
    let told = watched.told();
    let (_, new) = told[&pid];
    assert!(!new.ended, "{new:?}");
    assert!(new.since.0.abs_diff(ended) < 20_000_000, "{ended} {new:?}");
    // Whoever the new program started is watched from its first moment.
    for (tid, counts) in watched.after.iter().filter(|(tid, _)| **tid != pid) {
        let (_, thread) = told[tid];
        let runnable = thread.on_cpu + thread.run_queue();
        let counted = counts.on_cpu + counts.waiting;
        assert!(
            near(runnable, counted, SLACK + watched.stolen),
            "{counts:?} {thread:?}"
        );
    }
    Ok(())
}

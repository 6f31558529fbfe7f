//! What threads did, where a finding is about it.

use std::{collections::BTreeMap, io};

use crate::{
    detect::wording::{count, times},
    event::Pid,
};

use super::{
    super::{
        json::{Report, ThreadTold},
        threads::is_about_threads,
    },
    page::{Ink, Page},
};

/// What the threads did of each process that findings about threads name.
pub(super) fn write<W: io::Write>(page: &mut Page<'_, W>, report: &Report) -> io::Result<()> {
    let about = report.findings.iter().filter(|f| is_about_threads(f));
    let named: BTreeMap<Pid, &str> = about
        .map(|finding| (finding.process.pid, finding.process.comm.as_str()))
        .collect();
    for (pid, comm) in named {
        let threads: Vec<&ThreadTold> = report.threads.iter().filter(|t| t.pid == pid).collect();
        if threads.is_empty() {
            continue;
        }
        let sum = |of: fn(&ThreadTold) -> f64| threads.iter().map(|thread| of(thread)).sum::<f64>();
        let switches =
            |thread: &&ThreadTold| thread.switches_voluntary + thread.switches_involuntary;
        let throttled = match sum(|thread| thread.throttled_s) {
            0.0 => String::new(),
            throttled => format!(", throttled {throttled:.1} s"),
        };
        let told = format!(
            "{} of {comm} (pid {pid}): {:.1} s on CPU, {:.1} s waiting for one{throttled}, switched {}.",
            count(threads.len() as u64, "thread", "threads"),
            sum(|thread| thread.on_cpu_s),
            sum(|thread| thread.run_queue_s),
            times(threads.iter().map(switches).sum()),
        );
        page.hanging(2, "", Ink::Plain, &told)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Style, write};
    use crate::{
        detect::findings,
        model::story::{Asked, Story, thread},
        report::Report,
    };

    #[test]
    fn threads_are_summed_up_where_a_finding_is_about_them() {
        for computes in [false, true] {
            let mut story = Story::new();
            story.go(7, "shop");
            for tid in 7..9 {
                let mut thread = thread(7, tid);
                thread.on_cpu = Duration::from_millis(2_150);
                thread.woken = Duration::from_millis(300);
                thread.involuntary = 40;
                story.thread(20_000.0, thread);
            }
            for nth in 0..3 {
                let from = 100.0 + 3000.0 * f64::from(nth);
                let client = format!("10.0.0.9:{}", 50_000 + nth);
                let socket = story.accepted(from, 7, &client, "10.0.0.1:80");
                let asked = Asked::at(from, 90).by(7, 5).answered(from + 1000.0, 200);
                story.http(socket, 0, "GET /report", asked);
                if computes {
                    story.samples((from, from + 1000.0), (7, Some(5)), None, 99);
                }
            }
            let model = story.model(30_000.0);
            let report = Report::new(&model, &findings(&model));
            let mut out = Vec::new();
            write(&report, &mut out, Style::default()).unwrap();
            let text = String::from_utf8(out).unwrap();
            let sums = "2 threads of shop (pid 7): 4.3 s on CPU, 0.6 s waiting for one, switched 80 times.";
            assert_eq!(text.contains(sums), computes, "{text}");
        }
    }
}

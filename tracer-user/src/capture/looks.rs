//! Looking at goroutines: at one because of what happened on a socket, at all of them now and then.
//!
//! One goroutine is read in some ten microseconds, right where events are drained. All of them take
//! up to seconds, so a thread of its own reads them, and events are never held up.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use crate::{
    event::{BootInstant, Event, Fact, Pid, Unseen},
    golang::{Program, memory, pprof},
};

/// Goroutines told of one process at one time; a dump of more helps nobody, and costs memory.
const MOST: usize = 200_000;
/// Looks at single goroutines in a second: a storm of time-outs has one story.
const LOOKS: u32 = 50;

/// What the reading thread is asked.
enum Order {
    Snapshot {
        pid: Pid,
        program: Option<Arc<Program>>,
        endpoint: Option<pprof::Endpoint>,
    },
    Endpoint(Pid),
}

/// What it answers.
pub(super) enum Answer {
    Event(Event),
    Endpoint(Pid, pprof::Endpoint),
    Unseen(Unseen),
}

/// The reading thread, and the count of single looks.
pub(super) struct Looks {
    orders: Sender<Order>,
    answers: Receiver<Option<Answer>>,
    asked: usize,
    second: Instant,
    looked: u32,
}

impl Looks {
    pub(super) fn new() -> Self {
        let (orders, inbox) = mpsc::channel();
        let (outbox, answers) = mpsc::channel();
        thread::spawn(move || serve(&inbox, &outbox));
        Self {
            orders,
            answers,
            asked: 0,
            second: Instant::now(),
            looked: 0,
        }
    }

    /// Asks for every goroutine of a process.
    pub(super) fn ask_all(
        &mut self,
        pid: Pid,
        program: Option<Arc<Program>>,
        endpoint: Option<pprof::Endpoint>,
    ) {
        self.ask(Order::Snapshot {
            pid,
            program,
            endpoint,
        });
    }

    /// Asks for the pprof endpoint of a process.
    pub(super) fn ask_endpoint(&mut self, pid: Pid) {
        self.ask(Order::Endpoint(pid));
    }

    fn ask(&mut self, order: Order) {
        self.asked += usize::from(self.orders.send(order).is_ok());
    }

    /// What was answered since; never waits.
    pub(super) fn answers(&mut self) -> Vec<Option<Answer>> {
        let answers: Vec<_> = self.answers.try_iter().collect();
        self.asked = self.asked.saturating_sub(answers.len());
        answers
    }

    /// Whether all that was asked was answered.
    pub(super) fn idle(&self) -> bool {
        self.asked == 0
    }

    /// Looks at one goroutine now; `None` where it is gone, cannot be read, or where too many were
    /// looked at in this second.
    pub(super) fn one(
        &mut self,
        program: &Program,
        g: u64,
        id: u64,
    ) -> Option<crate::event::Goroutine> {
        if self.second.elapsed() > Duration::from_secs(1) {
            self.second = Instant::now();
            self.looked = 0;
        }
        self.looked += 1;
        if self.looked > LOOKS {
            return None;
        }
        memory::goroutine(program, g, id).ok().flatten()
    }
}

fn serve(inbox: &Receiver<Order>, outbox: &Sender<Option<Answer>>) {
    for order in inbox {
        let answer = match order {
            Order::Endpoint(pid) => {
                pprof::discover(pid).map(|endpoint| Answer::Endpoint(pid, endpoint))
            }
            Order::Snapshot {
                pid,
                program,
                endpoint,
            } => Some(snapshot(pid, program.as_deref(), endpoint.as_ref())),
        };
        if outbox.send(answer).is_err() {
            return;
        }
    }
}

/// From memory, which stops nobody; by pprof where that cannot be.
fn snapshot(pid: Pid, program: Option<&Program>, endpoint: Option<&pprof::Endpoint>) -> Answer {
    let at = now();
    let from_memory = program.map(|program| memory::snapshot(program, MOST));
    let read = match (from_memory, endpoint) {
        (Some(Ok(snapshot)), _) => Ok(snapshot),
        (_, Some(endpoint)) => pprof::snapshot(endpoint, pid, MOST),
        (Some(Err(error)), None) => Err(error),
        (None, None) => Err(crate::golang::GoError::Gone { pid }),
    };
    match read {
        Ok(snapshot) => Answer::Event(Event {
            at,
            fact: Fact::Goroutines(snapshot),
        }),
        Err(error) => Answer::Unseen(Unseen {
            what: format!("goroutines of pid {pid}"),
            why: error.to_string(),
            remedy: "name a pprof endpoint with --pprof URL".to_owned(),
        }),
    }
}

/// The boot clock, now.
pub(super) fn now() -> BootInstant {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default();
    BootInstant(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

//! Looking at goroutines: at one because of what happened on a socket, at all of them now and then.
//!
//! One goroutine is read in some ten microseconds, right where events are drained. All of them take
//! up to seconds, so a thread of its own reads them, and events are never held up; how often, the
//! rounds say.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use crate::{
    capabilities::{self, Step},
    event::{
        Blocking, BootInstant, Event, Fact, Goroutine, Labels, Pid, Snapshot, SnapshotSource,
        Unseen,
    },
    golang::{
        GoError, Program, memory,
        pprof::{self, Endpoint},
    },
    target::listeners,
};

use super::rounds::Rounds;

/// Goroutines told of one process at one time; a dump of more helps nobody, and costs memory.
const MOST: usize = 200_000;
/// Where one in so many goroutines never held still, and more than a handful, that is told.
const RESTLESS: u64 = 10;
/// Looks at single goroutines in a second: a storm of time-outs has one story.
const LOOKS: u32 = 50;

/// Where goroutines come from when a process's memory cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pprof {
    /// From an endpoint found among the ports the process listens on.
    Auto,
    /// From this one.
    Url(String),
    /// From nowhere.
    Off,
}

/// What the reading thread is asked: every goroutine of a process.
struct Order {
    pid: Pid,
    program: Arc<Program>,
}

/// What it answers.
pub(super) enum Answer {
    Event(Event),
    Endpoint(Pid, String),
    Unseen(Unseen),
    /// The order is done.
    Done(Done),
}

/// What became of an order.
pub(super) struct Done {
    pid: Pid,
    /// CPU time.
    took: Duration,
    /// It may be looked at in between.
    again: bool,
}

/// The reading thread, and the count of single looks.
pub(super) struct Looks {
    orders: Sender<Order>,
    answers: Receiver<Answer>,
    asked: usize,
    rounds: Rounds,
    second: Instant,
    looked: u32,
}

impl Looks {
    /// Goroutines come from `pprof` where memory cannot be read; reading them takes `share` of a CPU.
    pub(super) fn new(pprof: Pprof, share: f64) -> Self {
        let (orders, inbox) = mpsc::channel();
        let (outbox, answers) = mpsc::channel();
        let mut reader = Reader {
            pprof,
            endpoints: HashMap::new(),
            restless: HashSet::new(),
            outbox,
        };
        thread::spawn(move || {
            // Where it fails it does so in every thread, and is told of the first.
            let _ = capabilities::keep(&steps(true));
            for order in inbox {
                reader.serve(&order);
            }
        });
        Self {
            orders,
            answers,
            asked: 0,
            rounds: Rounds::new(share),
            second: Instant::now(),
            looked: 0,
        }
    }

    /// Asks for every goroutine of a process.
    pub(super) fn ask_all(&mut self, pid: Pid, program: Arc<Program>) {
        self.asked += usize::from(self.orders.send(Order { pid, program }).is_ok());
        self.rounds.asked(pid, Instant::now());
    }

    /// A process whose goroutines are to be looked at again now.
    pub(super) fn due(&self) -> Option<Pid> {
        self.rounds.due(Instant::now())
    }

    /// What was answered since; never waits.
    pub(super) fn answers(&mut self) -> Vec<Answer> {
        let answers: Vec<_> = self.answers.try_iter().collect();
        for answer in &answers {
            if let Answer::Done(done) = answer {
                self.asked = self.asked.saturating_sub(1);
                self.rounds
                    .looked(done.pid, done.took, done.again, Instant::now());
            }
        }
        answers
    }

    /// Whether all that was asked was answered.
    pub(super) fn idle(&self) -> bool {
        self.asked == 0
    }

    /// Looks at one goroutine now; `None` where it is gone, cannot be read, or where too many were
    /// looked at in this second.
    pub(super) fn one(&mut self, program: &Program, g: u64, id: u64) -> Option<Goroutine> {
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

/// What was read of a process.
struct Read {
    snapshot: Snapshot,
    /// Where it has any.
    labels: Option<Labels>,
    /// Where its memory tells.
    blocking: Option<Blocking>,
    /// How many goroutines never held still.
    unsettled: u64,
}

/// The reading thread's own.
struct Reader {
    pprof: Pprof,
    endpoints: HashMap<Pid, Option<Endpoint>>,
    /// Of whom it was told that they never hold still.
    restless: HashSet<Pid>,
    outbox: Sender<Answer>,
}

impl Reader {
    fn serve(&mut self, order: &Order) {
        let (at, began) = (now(), spent());
        let read = self.read(order);
        let done = Done {
            pid: order.pid,
            took: spent().saturating_sub(began),
            // An endpoint stops its service for a moment each time: that is for the window's ends alone.
            again: read
                .as_ref()
                .is_ok_and(|read| read.snapshot.source == SnapshotSource::Memory),
        };
        match read {
            Ok(read) => {
                self.tell_restless(order.pid, &read);
                let facts = [
                    read.labels.map(Fact::Labels),
                    Some(Fact::Goroutines(read.snapshot)),
                    read.blocking.map(Fact::Blocking),
                ];
                for fact in facts.into_iter().flatten() {
                    self.tell(Answer::Event(Event { at, fact }));
                }
            }
            // Told when the process was first looked at.
            Err(GoError::Layout { .. }) => {}
            Err(error) => self.tell(Answer::Unseen(Unseen {
                what: format!("goroutines of pid {}", order.pid),
                why: error.to_string(),
                remedy: "name a pprof endpoint with --pprof URL".to_owned(),
            })),
        }
        self.tell(Answer::Done(done));
    }

    /// Says once of a process that many of its goroutines could not be told whole.
    fn tell_restless(&mut self, pid: Pid, read: &Read) {
        let (lacks, total) = (read.unsettled, read.snapshot.total);
        if lacks * RESTLESS > total.max(50) && self.restless.insert(pid) {
            self.tell(Answer::Unseen(Unseen {
                what: format!("where some goroutines of pid {pid} stand"),
                why: format!("{lacks} of {total} moved however often they were read"),
                remedy: "look again while the process is less busy".to_owned(),
            }));
        }
    }

    /// From memory, which stops nobody; by pprof where that cannot be.
    fn read(&mut self, order: &Order) -> Result<Read, GoError> {
        let from_memory =
            memory::read_with_blocking(&order.program, MOST).map(|(reading, blocking)| {
                let labels = reading.labels;
                Read {
                    snapshot: reading.snapshot,
                    labels: (!labels.sets.is_empty() || labels.unread > 0).then_some(labels),
                    blocking: Some(blocking),
                    unsettled: reading.unsettled + reading.unnamed,
                }
            });
        match from_memory {
            Err(error) if !matches!(error, GoError::Gone { .. }) => {
                match self.endpoint(order.pid) {
                    Some(endpoint) => {
                        pprof::snapshot(&endpoint, order.pid, MOST).map(|snapshot| Read {
                            snapshot,
                            labels: None,
                            blocking: None,
                            unsettled: 0,
                        })
                    }
                    None => Err(error),
                }
            }
            read => read,
        }
    }

    /// Looked for once, and only when it is needed: it takes a request to each port.
    fn endpoint(&mut self, pid: Pid) -> Option<Endpoint> {
        if let Some(known) = self.endpoints.get(&pid) {
            return known.clone();
        }
        let found = match &self.pprof {
            Pprof::Auto => pprof::discover(pid),
            Pprof::Url(url) => Some(Endpoint::named(url)),
            Pprof::Off => None,
        };
        if let Some(endpoint) = &found {
            self.tell(Answer::Endpoint(pid, endpoint.url.clone()));
        }
        self.endpoints.insert(pid, found.clone());
        found
    }

    fn tell(&self, answer: Answer) {
        // Where nobody listens any more the capture is over.
        let _ = self.outbox.send(answer);
    }
}

/// What it takes on this host to read processes, and to ask their endpoints too.
#[must_use]
pub fn steps(endpoints: bool) -> Vec<Step> {
    let mut steps = vec![Step::Processes];
    if endpoints {
        steps.push(Step::Endpoints);
    }
    if listeners::several_namespaces() {
        steps.push(Step::Namespaces);
    }
    steps
}

/// CPU time that this thread has used.
fn spent() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map(Duration::from)
        .unwrap_or_default()
}

/// The boot clock, now.
#[must_use]
pub fn now() -> BootInstant {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default();
    BootInstant(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

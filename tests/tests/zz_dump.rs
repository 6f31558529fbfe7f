use std::collections::HashMap;
use tracer_user::{event::Fact, recording::Reader};
#[test]
fn dump() {
    let path = std::env::var("REC").unwrap();
    let mut last: HashMap<u32, (char, u64, String)> = HashMap::new();
    let mut n = 0;
    for e in Reader::open(path.as_ref()).unwrap() {
        if let Fact::Switched(s) = &e.fact {
            n += 1;
            if let Some((_, tid)) = s.from {
                let text = format!("{:?} cpu{}", s.left, s.cpu);
                if let Some((k, at, t)) = last.get(&tid) {
                    if *k == 'o' {
                        println!(
                            "{tid} left twice: {at} {t} then {} (+{} us) {text}",
                            e.at.0,
                            (e.at.0 - at) / 1000
                        );
                    } else if e.at.0 - at > 60_000_000 {
                        println!(
                            "{tid} long slice {} us from {t} to {text}",
                            (e.at.0 - at) / 1000
                        );
                    }
                }
                last.insert(tid, ('o', e.at.0, text));
            }
            if let Some((_, tid)) = s.to {
                let text = format!("in cpu{}", s.cpu);
                if let Some((k, at, t)) = last.get(&tid) {
                    if *k == 'i' {
                        println!(
                            "{tid} came twice: {at} {t} then {} (+{} us) {text}",
                            e.at.0,
                            (e.at.0 - at) / 1000
                        );
                    }
                }
                last.insert(tid, ('i', e.at.0, text));
            }
        }
        if let Fact::Thread(t) = &e.fact {
            if std::env::var("V").is_ok() {
                println!(
                    "{} {} on {:?} wait {:?} sleep {:?} v{} i{}",
                    e.at.0,
                    t.tid,
                    t.on_cpu,
                    t.run_queue(),
                    t.blocked(),
                    t.voluntary,
                    t.involuntary
                );
            }
        }
    }
    println!("{n} switches");
}

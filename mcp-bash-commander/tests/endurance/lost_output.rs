//! A command that ends right after its last byte, on a machine that has too much to do: the byte is there.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::client::Place;
use crate::scale::{Scale, alone};

/// Commands on their way at once.
const AT_ONCE: usize = 8;
/// Threads that want the processor as well.
const SPINNERS: usize = 2;

#[test]
fn no_output_is_lost_under_load() -> anyhow::Result<()> {
    let (scale, _turn) = (Scale::asked_for()?, alone());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..SPINNERS {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = races(scale.races);
        is_over.store(true, Ordering::Relaxed);
        result
    })
}

fn races(count: u64) -> anyhow::Result<()> {
    let place = Place::new()?;
    let mut server = place.start()?;
    let started = Instant::now();
    let mut on_their_way = VecDeque::new();
    let (mut begun, mut ended) = (0, 0);
    while ended < count {
        if begun < count && on_their_way.len() < AT_ONCE {
            let session = if begun % 2 == 0 {
                Value::Null
            } else {
                json!("kept")
            };
            let call = json!({"command": "seq 1 20000 | tail -1", "session": session});
            on_their_way.push_back(server.begin("exec", &call)?);
            begun += 1;
        } else if let Some(call) = on_their_way.pop_front() {
            let done = server.outcome(call)?.map_err(anyhow::Error::msg)?;
            assert_eq!(
                (&done["stdout"]["text"], &done["output_open"]),
                (&json!("20000\n"), &json!(false)),
                "command {ended}: {done}"
            );
            ended += 1;
        }
    }
    eprintln!(
        "{count} times `seq | tail`, {AT_ONCE} at once beside {SPINNERS} spinning threads: none empty, {:?}",
        started.elapsed()
    );
    Ok(())
}

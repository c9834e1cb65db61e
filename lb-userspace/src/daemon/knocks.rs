//! Joins monitors that ask for VIPs to the data plane, which knows how frames reach a node: what is asked within a short while
//! goes out together, on a thread of its own, as it waits for answers.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc},
    task,
    time::sleep,
};

use crate::{
    dataplane::doctor::knock::{self, Knocked, MAX_KNOCKS},
    health::{Knock, KnockAnswer, Knocks},
};

/// How long more is waited for.
const GATHER: Duration = Duration::from_millis(50);

/// Rounds under way: each takes up to two seconds, and a thread.
const ROUNDS: usize = 16;

/// Takes knocks as long as somebody may ask. Must be called on the runtime.
pub(super) fn start() -> Knocks {
    let (knocks, received) = mpsc::channel(MAX_KNOCKS);
    tokio::spawn(serve(received));
    knocks
}

async fn serve(mut received: mpsc::Receiver<Knock>) {
    let rounds = Arc::new(Semaphore::new(ROUNDS));
    while let Some(first) = received.recv().await {
        let mut batch = vec![first];
        sleep(GATHER).await;
        while batch.len() < MAX_KNOCKS
            && let Ok(more) = received.try_recv()
        {
            batch.push(more);
        }
        // It is never closed.
        let Ok(place) = Arc::clone(&rounds).acquire_owned().await else { return };
        task::spawn_blocking(move || {
            ask(batch);
            drop(place);
        });
    }
}

fn ask(batch: Vec<Knock>) {
    let wanted: Vec<_> = batch.iter().map(|knock| (knock.node, knock.vip)).collect();
    for (asked, knocked) in batch.into_iter().zip(knock::knock(&wanted)) {
        let answer = match knocked {
            Knocked::Accepted => KnockAnswer::Accepted,
            Knocked::Refused => KnockAnswer::Refused,
            Knocked::Silent => KnockAnswer::Silent,
            Knocked::NotSent(why) => KnockAnswer::NotSent(why),
            Knocked::Unknown(why) => KnockAnswer::Unknown(why),
        };
        // The check may have been given up.
        let _ = asked.answer.send(answer);
    }
}

//! What quirks do once in a while: a thread that does it, and ends with its owner.

use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, select, tick};

/// A thread that does something again and again.
#[derive(Debug)]
pub(crate) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Does it once in so long, from now on.
    pub(crate) fn start(
        every: Duration,
        work: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let ticks = tick(every);
        let run = move || {
            loop {
                select! {
                    recv(ticks) -> _ => work(),
                    recv(stopped) -> _ => return,
                }
            }
        };
        let thread = std::thread::Builder::new().name("quirk".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed.
            let _ = thread.join();
        }
    }
}

//! Ctrl-C: the first one asks the run to stop, the second one ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use crate::exit;

/// A flag that the first Ctrl-C (or SIGTERM, SIGHUP) sets, from the moment this returns. `first` is told; the second ends the
/// process at once. Programs that stages started die with it: a stage starts them so that they do.
///
/// Where signals can't be listened to, a run still works: Ctrl-C then ends it the hard way, and segments make that safe.
pub(crate) fn flag(first: impl Fn() + Send + 'static) -> Arc<AtomicBool> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    let (listening, ready) = mpsc::channel();
    let listen = move || -> io::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
            let mut interrupts = Interrupts::listen()?;
            let _ = listening.send(());
            loop {
                interrupts.next().await?;
                if flag.swap(true, Ordering::Relaxed) {
                    std::process::exit(i32::from(exit::INTERRUPTED));
                }
                first();
            }
        })
    };
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(listen);
    // An error means that the thread is gone, and nothing will be listened to.
    let _ = ready.recv();
    cancel
}

#[cfg(unix)]
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// The terminal is gone.
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Interrupts {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
        Ok(())
    }
}

#[cfg(windows)]
struct Interrupts(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Interrupts {
    fn listen() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) -> io::Result<()> {
        self.0.recv().await;
        Ok(())
    }
}

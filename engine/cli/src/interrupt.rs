//! Ctrl-C: the first one asks the run to stop, the second one ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit;

/// A flag that the first Ctrl-C (or SIGTERM) sets. `first` is told; the second ends the process at once. Programs that
/// stages started die with it: a stage starts them so that they do.
pub(crate) fn flag(first: impl Fn() + Send + 'static) -> Arc<AtomicBool> {
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancel);
    let listen = move || {
        // Without signals a run still works; Ctrl-C then ends it the hard way, and segments make that safe.
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            while interrupted().await.is_ok() {
                if flag.swap(true, Ordering::Relaxed) {
                    std::process::exit(i32::from(exit::INTERRUPTED));
                }
                first();
            }
        });
    };
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(listen);
    cancel
}

#[cfg(unix)]
async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(not(unix))]
async fn interrupted() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

//! Starts the fork servers from a thread behind the walls.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::layers::{self, Layers};
use crate::python::Python;

/// The thread that starts fork servers: it is restricted for good, and what it starts inherits that. The servers ask
/// the kernel to be killed when it ends.
pub(super) struct Spawner {
    commands: Option<mpsc::Sender<(Command, mpsc::Sender<io::Result<Child>>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Spawner {
    pub(super) fn start(python: &Python) -> io::Result<(Self, Layers)> {
        let (commands, orders) = mpsc::channel::<(Command, mpsc::Sender<io::Result<Child>>)>();
        let (report, reported) = mpsc::channel();
        let readable = python.readable.clone();
        let folder = tempfile::Builder::new().prefix("tracetune-root-").tempdir()?;
        let root = folder.path().to_owned();
        let thread = std::thread::Builder::new().name("sandbox".to_owned()).spawn(move || {
            let _ = report.send(layers::restrict_thread(&readable, &root));
            for (mut command, reply) in orders {
                let _ = reply.send(command.spawn());
            }
        })?;
        let layers = reported.recv().map_err(io::Error::other)?;
        Ok((Self { commands: Some(commands), thread: Some(thread) }, layers))
    }

    pub(super) fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, replied) = mpsc::channel();
        let commands = self.commands.as_ref().ok_or_else(|| io::Error::other("the sandbox is closed"))?;
        commands.send((command, reply)).map_err(|_| io::Error::other("the sandbox is closed"))?;
        replied.recv().map_err(io::Error::other)?
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

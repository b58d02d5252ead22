//! Starts the fork servers from a thread that stays.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// The thread that starts fork servers: they ask the kernel to be killed when the thread ends that started them.
pub(super) struct Spawner {
    commands: Option<mpsc::Sender<(Command, mpsc::Sender<io::Result<Child>>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Spawner {
    pub(super) fn start() -> io::Result<Self> {
        let (commands, orders) = mpsc::channel::<(Command, mpsc::Sender<io::Result<Child>>)>();
        let thread = std::thread::Builder::new().name("sandbox".to_owned()).spawn(move || {
            for (mut command, reply) in orders {
                let _ = reply.send(command.spawn());
            }
        })?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
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

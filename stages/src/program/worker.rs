//! A program that stays, and answers what it is asked.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracetune_engine::stage::{Context, StageError};

use super::output::Listener;
use super::{Ended, Patience, Program, Running};

/// A program that runs. A socket is both its standard input and its standard output: what is written here it reads, and the
/// other way round; it should have its own prints go to its standard error, which is the stage's log.
///
/// Reading and writing fail once the run is interrupted. Dropped, it ends at once, with all that it started.
pub(crate) struct Worker {
    channel: UnixStream,
    running: Running,
    listener: Listener,
    cx: Context,
}

impl Program {
    /// Starts it, to stay.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn start(&self, cx: &Context) -> Result<Worker, StageError> {
        let (channel, theirs) = UnixStream::pair()?;
        channel.set_nonblocking(true)?;
        let theirs = OwnedFd::from(theirs);
        let (reader, writer) = std::io::pipe()?;
        let mut command = self.command(true, theirs.try_clone()?.into());
        command.stdout(theirs).stderr(writer);
        let running = self.spawn(command)?;
        Ok(Worker { channel, running, listener: Listener::start(reader, cx)?, cx: cx.clone() })
    }
}

impl Worker {
    /// Closes its input and waits for its end; one that does not end is ended. Also says, after reading or writing failed,
    /// how it ended.
    ///
    /// # Errors
    /// The run is interrupted.
    pub(crate) fn end(self) -> Result<Ended, StageError> {
        let _ = self.channel.shutdown(Shutdown::Write);
        let status = self.running.wait(&self.cx, Some(Instant::now()))?;
        Ok(Ended { status, tail: self.listener.tail() })
    }

    /// Waits until the socket can be used; fails if the run is interrupted.
    fn ready(&self, flags: PollFlags) -> io::Result<()> {
        let longest = Timespec { tv_sec: 0, tv_nsec: Patience::LONGEST.subsec_nanos().into() };
        loop {
            if self.cx.cancelled() {
                return Err(io::Error::other("the run is interrupted"));
            }
            match poll(&mut [PollFd::new(&self.channel, flags)], Some(&longest)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tries until it is not told to wait.
    fn each<T>(&mut self, flags: PollFlags, mut one: impl FnMut(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            self.ready(flags)?;
            match one(&self.channel) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

impl Read for Worker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.each(PollFlags::IN, |mut channel| channel.read(buffer))
    }
}

impl Write for Worker {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.each(PollFlags::OUT, |mut channel| channel.write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

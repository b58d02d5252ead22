//! One fork server and the one job at a time that it runs for us: the supervisor's side of `zygote.py`.

use std::io::{self, IoSlice, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, kill_process};

use super::activity::Idleness;
use super::call::Bounds;
use super::frame::Decoder;
use super::{Ending, Limits, Reply, SandboxError};

/// How often a running job looks whether the run was interrupted.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);
/// How many times the wall limit a job may take that gets little of a crowded machine.
const MOST_EXTENSIONS: u32 = 8;
/// How long a job that writes is left to write more before that is read.
const GATHER_INTERVAL: Duration = Duration::from_millis(2);
/// Linux counts CPU time for user space in hundredths of a second, whatever the kernel's own tick.
const TICK: Duration = Duration::from_millis(10);
/// A message of the fork server: a letter and a number.
const MESSAGE: usize = 9;

/// A started fork server; dropping it ends it and whatever it runs.
pub(crate) struct Zygote {
    process: Child,
    control: UnixStream,
    /// Its own error output, kept for the message when it dies.
    errors: PipeReader,
    pub(crate) jobs: usize,
    /// Whether a job left something behind that its server could not remove.
    pub(crate) is_soiled: bool,
}

/// What bounds one job from outside.
pub(crate) struct Terms {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
    /// How long it may wait while nothing keeps it from the CPU.
    pub(crate) idle: Duration,
    pub(crate) output_bytes: u64,
    pub(crate) report: Bounds,
    pub(crate) keeps_output: bool,
}

impl Terms {
    pub(crate) fn of(limits: &Limits, report: Bounds) -> Self {
        let (cpu, wall, idle) = (limits.cpu_s.duration(), limits.wall(), limits.idle());
        Self { cpu, wall, idle, output_bytes: limits.output_bytes, report, keeps_output: false }
    }
}

impl Zygote {
    pub(crate) fn new(process: Child, control: UnixStream, errors: PipeReader) -> Self {
        Self { process, control, errors, jobs: 0, is_soiled: false }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Runs one job: sends it, gathers its frames until it says `done` or ends, and makes sure that it is dead.
    pub(crate) fn call(
        &mut self,
        job: &[u8],
        terms: &Terms,
        link: Option<OwnedFd>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Reply, SandboxError> {
        self.jobs += 1;
        self.converse(job, terms, link, cancelled).map_err(|error| match error {
            Failure::Cancelled => SandboxError::Cancelled,
            Failure::Io(error) => SandboxError::ForkServer(self.last_words(&error.to_string())),
        })
    }

    fn converse(
        &mut self,
        job: &[u8],
        terms: &Terms,
        link: Option<OwnedFd>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Reply, Failure> {
        let (ours, theirs) = UnixStream::pair()?;
        let (output, output_end) = io::pipe()?;
        self.fork([Some(theirs.into()), Some(output_end.into()), link])?;
        ours.set_nonblocking(true)?;
        rustix::io::ioctl_fionbio(&output, true).map_err(io::Error::from)?;
        let mut run = Run::new(ours, output, job, terms);
        run.send()?;
        let start = Instant::now();
        let (mut deadline, mut inspection) = (start + terms.wall, start + terms.cpu);
        let mut idleness = Idleness::since(start);
        let mut extensions = 0;
        let mut used = Duration::ZERO;
        let mut pid = None;
        let mut stop = None;
        let mut killed = false;
        let ending = loop {
            if let (Some(_), Some(pid), false) = (&stop, pid, killed) {
                // It is our zygote's child and unreaped, so the pid is still its own. It may be gone already.
                let _ = kill_process(pid, Signal::KILL);
                killed = true;
                run.is_over = true;
            }
            let now = Instant::now();
            if stop.is_none() && now >= deadline {
                // A job that computes all the same is kept from its CPU by others: it is waited for.
                let before = used;
                used = pid.and_then(cpu_time).unwrap_or(before);
                if extensions < MOST_EXTENSIONS && used.saturating_sub(before) > terms.wall / 40 {
                    extensions += 1;
                    deadline = now + terms.wall;
                } else {
                    stop = Some(Ending::WallTime);
                }
                continue;
            }
            if stop.is_none() && now >= inspection {
                // The kernel ends a job at whole seconds only.
                let spent = pid.and_then(cpu_time).unwrap_or_default();
                if spent >= terms.cpu {
                    stop = Some(Ending::CpuTime);
                    continue;
                }
                inspection = now + (terms.cpu - spent).max(TICK);
            }
            if let (None, Some(pid)) = (&stop, pid)
                && run.unsent.is_empty()
                && idleness.look(pid, now) > terms.idle
            {
                stop = Some(Ending::WallTime);
                continue;
            }
            let next =
                if stop.is_some() { CANCEL_INTERVAL } else { deadline.min(inspection).saturating_duration_since(now) };
            let timeout = next.min(CANCEL_INTERVAL);
            match self.wait(&mut run, timeout)? {
                Some(Message::Forked(child)) => pid = Some(child),
                Some(Message::Ended(ending, is_clean)) => {
                    self.is_soiled = !is_clean;
                    break ending;
                }
                None => {}
            }
            if stop.is_none() {
                stop = run.verdict(terms);
            }
            if cancelled() {
                if let Some(pid) = pid {
                    let _ = kill_process(pid, Signal::KILL);
                }
                return Err(Failure::Cancelled);
            }
        };
        run.drain()?;
        // What follows a final frame or a deadline does not count; only output is counted to the end.
        let late = if stop.is_none() { run.verdict(terms) } else { None };
        let mut reply = run.reply;
        reply.ending = late.or(stop).unwrap_or(ending);
        if reply.output_bytes > terms.output_bytes {
            reply.ending = Ending::Output;
        }
        if reply.ending == Ending::Signal(Signal::KILL.as_raw()) {
            reply.cpu = pid.and_then(cpu_time);
        }
        Ok(reply)
    }

    /// Has the server fork a child that holds these: the job, its output, and maybe a link.
    fn fork(&self, descriptors: [Option<OwnedFd>; 3]) -> Result<(), Failure> {
        let descriptors: Vec<_> = descriptors.iter().flatten().map(AsFd::as_fd).collect();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        // Without a flag against SIGPIPE, which not all systems have: Rust programs ignore it.
        sendmsg(&self.control, &[IoSlice::new(b"F")], &mut ancillary, SendFlags::empty()).map_err(io::Error::from)?;
        Ok(())
    }

    /// Moves bytes until something happens or `timeout` passes; a message of the server, if there is one.
    ///
    /// A job writes many small frames. Waking for each would cost more than most jobs, so after some have come only
    /// the server is listened to for a moment: a short job's frames are then read all at once, after its end.
    fn wait(&mut self, run: &mut Run, timeout: Duration) -> Result<Option<Message>, Failure> {
        let job_events = if run.unsent.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut watched = vec![PollFd::new(&self.control, PollFlags::IN)];
        // A closed end reports itself for ever: it is left out.
        if !run.talking && !run.job_closed {
            watched.push(PollFd::new(&run.ours, job_events));
        }
        if !run.talking && !run.output_closed {
            watched.push(PollFd::new(&run.output, PollFlags::IN));
        }
        let timeout = if run.talking { timeout.min(GATHER_INTERVAL) } else { timeout };
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::Io(error.into())),
        }
        if !watched[0].revents().is_empty() {
            return self.message().map(Some);
        }
        run.send()?;
        run.talking = run.receive()?;
        Ok(None)
    }

    fn message(&mut self) -> Result<Message, Failure> {
        let mut bytes = [0; MESSAGE];
        self.control.read_exact(&mut bytes)?;
        let number = u64::from_le_bytes(std::array::from_fn(|byte| bytes[byte + 1])) as i32;
        Ok(match bytes[0] {
            b'P' => Message::Forked(Pid::from_raw(number).ok_or_else(|| io::Error::other("no process"))?),
            letter @ (b'X' | b'x') => Message::Ended(Ending::Exit(number), letter == b'X'),
            letter => Message::Ended(Ending::Signal(number), letter == b'S'),
        })
    }

    /// Waits for the frame that a server sends once it can fork, on the socket that becomes its first job.
    pub(crate) fn await_ready(&mut self, socket: &mut UnixStream) -> Result<(), SandboxError> {
        let mut decoder = Decoder::default();
        let mut bytes = [0; 64];
        loop {
            let count = socket.read(&mut bytes).unwrap_or(0);
            decoder.push(&bytes[..count]);
            match decoder.next() {
                Ok(Some(frame)) if frame[0] == b"ready" => return Ok(()),
                Ok(Some(frame)) if frame.len() == 3 && frame[0] == b"warm" => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    return Err(SandboxError::Warm { module: text(&frame[1]), reason: text(&frame[2]) });
                }
                Ok(None) if count > 0 => {}
                _ => return Err(SandboxError::ForkServer(self.last_words("it did not start"))),
            }
        }
    }

    /// What the server wrote before it died.
    fn last_words(&mut self, otherwise: &str) -> String {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let mut words = String::new();
        let _ = rustix::io::ioctl_fionbio(&self.errors, true);
        let _ = self.errors.read_to_string(&mut words);
        let last = words.trim().lines().next_back().unwrap_or_default();
        if last.is_empty() { otherwise.to_owned() } else { last.to_owned() }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // A candidate dies with its server: both asked the kernel for that.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

enum Message {
    Forked(Pid),
    /// How, and whether its folder is as fresh as before.
    Ended(Ending, bool),
}

enum Failure {
    Cancelled,
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One job's two channels and what has come through them.
struct Run<'a> {
    ours: UnixStream,
    output: PipeReader,
    unsent: &'a [u8],
    decoder: Decoder,
    reply: Reply,
    job_closed: bool,
    output_closed: bool,
    /// Whether bytes came lately.
    talking: bool,
    /// Whether what still comes counts no more.
    is_over: bool,
    keeps_output: bool,
}

impl<'a> Run<'a> {
    fn new(ours: UnixStream, output: PipeReader, unsent: &'a [u8], terms: &Terms) -> Self {
        let (decoder, reply, keeps_output) = (Decoder::new(terms.report), Reply::default(), terms.keeps_output);
        let (job_closed, output_closed, is_over) = (false, false, false);
        Self { ours, output, unsent, decoder, reply, job_closed, output_closed, talking: true, is_over, keeps_output }
    }

    /// Whether enough is known to stop the job.
    fn verdict(&mut self, terms: &Terms) -> Option<Ending> {
        if self.reply.output_bytes > terms.output_bytes {
            return Some(Ending::Output);
        }
        loop {
            match self.decoder.next() {
                Ok(Some(frame)) if frame[0] == b"done" => {
                    self.reply.frames.push(frame);
                    return Some(Ending::Done);
                }
                Ok(Some(frame)) => self.reply.frames.push(frame),
                Ok(None) => return None,
                Err(_) => return Some(Ending::Malformed),
            }
        }
    }

    fn send(&mut self) -> Result<(), Failure> {
        while !self.unsent.is_empty() {
            match self.ours.write(self.unsent) {
                Ok(count) => self.unsent = &self.unsent[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The child is gone; the server will say how it ended.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.unsent = &[],
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes what is there; whether that was anything.
    fn receive(&mut self) -> Result<bool, Failure> {
        let before = (self.decoder.received(), self.reply.output_bytes);
        let mut bytes = [0; 1 << 15];
        match self.ours.read(&mut bytes) {
            Ok(0) => self.job_closed = true,
            Ok(_) if self.is_over => {}
            Ok(count) => self.decoder.push(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.job_closed = true,
            Err(error) => return Err(error.into()),
        }
        match self.output.read(&mut bytes) {
            Ok(0) => self.output_closed = true,
            Ok(count) => {
                self.reply.output_bytes += count as u64;
                if self.keeps_output {
                    self.reply.output.extend(&bytes[..count]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(before != (self.decoder.received(), self.reply.output_bytes))
    }

    /// Reads what a dead job has left in its channels.
    fn drain(&mut self) -> Result<(), Failure> {
        while self.receive()? {}
        Ok(())
    }
}

/// CPU time of a process that is not reaped; known on Linux. Elsewhere only the kernel's own limit, in whole seconds, holds.
fn cpu_time(pid: Pid) -> Option<Duration> {
    let stat = fs_err::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    Some(TICK * ticks)
}

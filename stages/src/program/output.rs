//! Hears a program: its bytes go to the stage's log, its lines to those who watch, its last words to the error.

use std::collections::VecDeque;
use std::io::{PipeReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracetune_engine::stage::{Context, StageError};

/// Bytes of the end that are kept for a message.
const TAIL_BYTES: usize = 4000;
/// Bytes of a line that are shown.
const LINE_BYTES: usize = 4000;
/// How long to wait for the last bytes once the program has ended: a process that it left behind may hold the pipe.
const LAST_BYTES: Duration = Duration::from_secs(2);

/// A thread that reads a program's output.
pub(super) struct Listener {
    tail: Arc<Mutex<VecDeque<u8>>>,
    ended: Receiver<()>,
}

impl Listener {
    pub(super) fn start(mut output: PipeReader, cx: &Context) -> Result<Self, StageError> {
        let tail = Arc::new(Mutex::new(VecDeque::with_capacity(TAIL_BYTES)));
        let (end, ended) = channel();
        let (kept, cx) = (Arc::clone(&tail), cx.clone());
        let listen = move || {
            let mut lines = Lines::default();
            let mut buffer = vec![0; 1 << 16];
            let mut is_kept = true;
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let bytes = &buffer[..count];
                if is_kept && let Err(error) = cx.log.write(bytes) {
                    is_kept = false;
                    cx.note(&format!("what its programs write can't be kept: {error}"));
                }
                keep(&mut kept.lock().unwrap_or_else(PoisonError::into_inner), bytes);
                lines.add(bytes, |line| cx.reporter.log(line));
            }
            lines.end(|line| cx.reporter.log(line));
            let _ = end.send(());
        };
        std::thread::Builder::new().name("output".to_owned()).spawn(listen)?;
        Ok(Self { tail, ended })
    }

    /// The end of what was written, once all of it is heard.
    pub(super) fn tail(self) -> String {
        let _ = self.ended.recv_timeout(LAST_BYTES);
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        text_of(&tail.iter().copied().collect::<Vec<u8>>())
    }
}

/// The end as text: of a bar of progress its last state; a character that was cut in the middle is left out.
fn text_of(tail: &[u8]) -> String {
    let start =
        if tail.len() == TAIL_BYTES { tail.iter().take(3).take_while(|&&byte| byte & 0xc0 == 0x80).count() } else { 0 };
    let (mut lines, mut text) = (Lines::default(), String::new());
    let mut add = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    lines.add(&tail[start..], &mut add);
    lines.end(&mut add);
    text.trim_end().to_owned()
}

fn keep(tail: &mut VecDeque<u8>, bytes: &[u8]) {
    let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
    let too_many = (tail.len() + last.len()).saturating_sub(TAIL_BYTES);
    tail.drain(..too_many);
    tail.extend(last);
}

/// Bytes as lines. A carriage return begins a line anew, as the bars of progress do that a program draws.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    returned: bool,
    left_out: usize,
}

impl Lines {
    fn add(&mut self, bytes: &[u8], mut each: impl FnMut(&str)) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end(&mut each),
                b'\r' => self.returned = true,
                byte => {
                    if std::mem::take(&mut self.returned) {
                        self.line.clear();
                        self.left_out = 0;
                    }
                    if self.line.len() < LINE_BYTES {
                        self.line.push(byte);
                    } else {
                        self.left_out += 1;
                    }
                }
            }
        }
    }

    fn end(&mut self, mut each: impl FnMut(&str)) {
        let mut text = String::from_utf8_lossy(&self.line).into_owned();
        if self.left_out > 0 {
            text.push_str(&format!("… ({} more bytes)", self.left_out));
        }
        if !text.trim().is_empty() {
            each(&text);
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        pieces.iter().for_each(|piece| lines.add(piece, |line| found.push(line.to_owned())));
        lines.end(|line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(lines(&[b"on", b"e\ntwo\r\n\n", b"three"]), ["one", "two", "three"]);
    }

    #[test]
    fn of_a_bar_of_progress_the_last_state_is_shown() {
        assert_eq!(lines(&[b"\r10%", b"\r 50%\r100%\n", b"done\n"]), ["100%", "done"]);
    }

    #[test]
    fn a_tail_is_text_without_the_states_of_a_bar() {
        assert_eq!(text_of(b"one\n10%\r20%\r30%\n\xff two\n"), "one\n30%\n\u{fffd} two");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let found = lines(&[&vec![b'x'; LINE_BYTES], b"yyy\n"]);
        assert!(found[0].ends_with("x… (3 more bytes)") && found.len() == 1);
    }

    #[test]
    fn the_tail_is_the_end() {
        let mut tail = VecDeque::new();
        for number in 0..3000 {
            keep(&mut tail, format!("{number}\n").as_bytes());
        }
        let text: Vec<u8> = tail.iter().copied().collect();
        assert!(text.len() == TAIL_BYTES && text.ends_with(b"2998\n2999\n"));
        keep(&mut tail, &vec![b'z'; 3 * TAIL_BYTES]);
        assert!(tail.len() == TAIL_BYTES && tail.iter().all(|&byte| byte == b'z'));
    }
}

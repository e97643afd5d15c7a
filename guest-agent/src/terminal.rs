//! A pseudo-terminal: its two ends, its size, its bytes.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use bytes::BufMut;
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{InputModes, OptionalActions, SpecialCodeIndex, Winsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Rows and columns where the host says 0: what terminals had.
const DEFAULT_ROWS: u16 = 24;
const DEFAULT_COLUMNS: u16 = 80;

const DEFAULT_TERM: &str = "xterm-256color";

/// The names in terminfo(5) databases are shorter.
const MAX_TERM_BYTES: usize = 64;

/// A page at most comes of a terminal at a time.
const READ_BYTES: usize = 4 << 10;

/// What ends a line's input where the terminal has no character of its own for it (termios(3), VEOF).
const CONTROL_D: u8 = 4;

/// The agent's end. Dropped, the terminal hangs up: its session's leader and foreground group get SIGHUP (pty(7)).
#[derive(Debug)]
pub struct Terminal {
    master: AsyncFd<File>,
}

impl Terminal {
    /// A new one, and the end that programs have; it belongs to `owner`, or who uses it could not open it by its name.
    pub fn open(owner: u32) -> io::Result<(Self, OwnedFd)> {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        // By descriptor: whatever the image mounts on /dev/pts.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let programs = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        // One who is not root owns it already.
        let _ = rustix::fs::fchown(&programs, Some(rustix::fs::Uid::from_raw(owner)), None);
        // Erasing takes characters, not bytes (termios(3), IUTF8).
        if let Ok(mut modes) = rustix::termios::tcgetattr(&programs) {
            modes.input_modes |= InputModes::IUTF8;
            let _ = rustix::termios::tcsetattr(&programs, OptionalActions::Now, &modes);
        }
        rustix::io::ioctl_fionbio(&master, true)?;
        let master = sys::watched(master.into(), Interest::READABLE | Interest::WRITABLE)?;
        Ok((Self { master }, programs))
    }

    /// Its foreground group is told by SIGWINCH.
    pub fn resize(&self, rows: u32, columns: u32) {
        let size = |wanted: u32, default| match wanted {
            0 => default,
            wanted => u16::try_from(wanted).unwrap_or(u16::MAX),
        };
        let size = Winsize {
            ws_row: size(rows, DEFAULT_ROWS),
            ws_col: size(columns, DEFAULT_COLUMNS),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // A terminal of another size is still one.
        let _ = rustix::termios::tcsetwinsize(self.master.get_ref(), size);
    }

    /// What programs have written; `None` once nobody holds their end any more. Safe to cancel.
    pub async fn read(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            let mut ready = self.master.readable().await.ok()?;
            match ready.try_io(|master| master.get_ref().read(buffer)) {
                // EIO says that it was closed (tty_io.c); a read of 0 does elsewhere.
                Ok(Ok(0)) => return None,
                Ok(Ok(length)) => return Some(length),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => return None,
                Err(_would_block) => {}
            }
        }
    }

    /// Waits until there may be something to read.
    pub async fn readable(&self) -> io::Result<()> {
        // It stays ready until a read finds nothing.
        self.master.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// Reads at once, or fails with `WouldBlock`; 0 once nobody holds the programs' end any more.
    pub fn try_read(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        let mut chunk = [0; READ_BYTES];
        let most = READ_BYTES.min(buffer.remaining_mut());
        let read = |mut master: &File| master.read(&mut chunk[..most]);
        match self.master.try_io(Interest::READABLE, read) {
            Ok(length) => {
                buffer.put_slice(&chunk[..length]);
                Ok(length)
            }
            // EIO says that it was closed (tty_io.c).
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Waits until something may be typed.
    pub async fn writable(&self) -> io::Result<()> {
        self.master.writable().await.map(|mut ready| ready.retain_ready())
    }

    /// Types at once what programs have room for, or fails with `WouldBlock`.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.master.try_io(Interest::WRITABLE, |mut master| master.write(bytes))
    }

    /// What a user types to end the input.
    pub fn end_of_input(&self) -> u8 {
        let modes = rustix::termios::tcgetattr(self.master.get_ref());
        match modes.map(|modes| modes.special_codes[SpecialCodeIndex::VEOF]) {
            Ok(code @ 1..) => code,
            _ => CONTROL_D,
        }
    }

    /// Types. Waits while programs do not read what was typed before.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.master.writable().await?;
            match ready.try_io(|master| master.get_ref().write(bytes)) {
                Ok(Ok(length)) => bytes = &bytes[length..],
                Ok(Err(error)) if Errno::from_io_error(&error) == Some(Errno::INTR) => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }
}

/// The value of TERM. A name that can't be one is not passed on: programs make paths of it.
pub fn term(wanted: &str) -> &str {
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte);
    let is_name = (1..=MAX_TERM_BYTES).contains(&wanted.len())
        && wanted.bytes().all(usable)
        && !wanted.starts_with('.');
    if is_name { wanted } else { DEFAULT_TERM }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_terminal_s_name_is_passed_on() {
        for name in ["xterm-256color", "tmux", "vt100", "screen.xterm", "rxvt-unicode+x"] {
            assert_eq!(term(name), name);
        }
        for name in ["", "../../etc", "a b", ".hidden", "x=y", "\u{e9}", &"x".repeat(65)] {
            assert_eq!(term(name), DEFAULT_TERM, "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_host_names_no_path_comes_of_it(name in any::<String>()) {
            let name = term(&name);
            prop_assert!(!name.is_empty() && !name.contains(['/', '\0', '=']));
        }
    }
}

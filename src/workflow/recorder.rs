//! Takes an exec's output off its queue and into the log store.

use crate::runtime::{OutputReader, Stream};
use crate::state::log::{Appender, LogError};

/// Writes one step's two streams.
#[derive(Debug)]
pub struct Recorder {
    stdout: Appender,
    stderr: Appender,
}

impl Recorder {
    pub fn new(stdout: Appender, stderr: Appender) -> Self {
        Self { stdout, stderr }
    }

    /// Records to the end of the output, then writes what the masks still hold back.
    ///
    /// # Errors
    /// When the store can't be written; nobody reads the output then, so its writer does not wait.
    pub async fn record(mut self, mut output: OutputReader) -> Result<(), LogError> {
        // write(2) of at most a frame into the page cache: not worth another thread.
        while let Some(chunk) = output.next().await {
            let appender = match chunk.stream {
                Stream::Stdout => &mut self.stdout,
                Stream::Stderr => &mut self.stderr,
            };
            let stored = appender.append(chunk.raw_offset, &chunk.bytes)?;
            // What was handed over exists.
            let _ = output.acknowledge(chunk.stream, stored.raw);
        }
        for (stream, appender) in [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)] {
            let stored = appender.finish()?;
            let _ = output.acknowledge(stream, stored.raw);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::OutputOffsets;
    use crate::runtime::streams::output;
    use crate::state::log::{Limits, LogStore, Mask, Stream as LogStream};

    #[tokio::test]
    async fn what_the_mask_holds_back_is_acknowledged_when_it_is_stored_and_all_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let mask = Mask::new(&["hunter2"]).unwrap();
        let log = LogStore::anonymous(directory.path(), Limits::of_step(1 << 20), mask).unwrap();
        let appender = |stream| log.appender(0, stream);
        let recorder = Recorder::new(appender(LogStream::Stdout), appender(LogStream::Stderr));
        let (writer, reader) = output();
        let mut acknowledged = writer.acknowledged();
        let recording = tokio::spawn(recorder.record(reader));

        writer.send(Stream::Stdout, b"pass: hun").await.unwrap();
        let stdout = acknowledged.wait_for(|offsets| offsets.stdout > 0).await.unwrap().stdout;
        assert_eq!(stdout, 6, "`hun` is in no log yet");
        assert_eq!(log.acknowledged(0, LogStream::Stdout).raw, 6);
        writer.send(Stream::Stdout, b"ter2\nh").await.unwrap();
        acknowledged.wait_for(|offsets| offsets.stdout == 14).await.unwrap();
        writer.send(Stream::Stderr, b"hu").await.unwrap();
        drop(writer);
        recording.await.unwrap().unwrap();
        assert_eq!(*acknowledged.borrow(), OutputOffsets { stdout: 15, stderr: 2 });
        assert_eq!(log.acknowledged(0, LogStream::Stdout).stored, 11);
    }
}

//! A caller's side of an exec.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot, watch};

use crate::machines::error::Detached;
use crate::runtime::{InputProgress, OutputChunk, OutputOffsets, Stream, TerminalSize, Verdict};

/// Pieces of output on their way from the owner to its caller, of at most 64 KiB each.
pub(super) const NEWS_QUEUE: usize = 2;

/// What a caller has said and the owner has not heeded. A full queue holds the caller back.
pub(super) const ASKS_QUEUE: usize = 1;

/// What a caller says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// It waits while the program does not read.
    Input {
        offset: u64,
        bytes: Bytes,
    },
    CloseInput,
    Resize(TerminalSize),
    Acknowledge(OutputOffsets),
    /// Whatever was agreed on lingering.
    Cancel,
}

/// What a caller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    Output(OutputChunk),
    InputWritten(InputProgress),
    /// The last.
    Verdict(Box<Verdict>),
}

/// A caller is attached to an exec for as long as it keeps `news`.
#[derive(Debug)]
pub struct Attachment {
    pub exec_id: String,
    /// The next input begins here.
    pub input_offset: u64,
    pub asks: Asks,
    pub news: NewsReader,
}

/// The way to say something.
#[derive(Debug)]
pub struct Asks(mpsc::Sender<Ask>);

impl Asks {
    /// Waits until it is taken. What an exec no longer heeds is lost; why is told by its news.
    pub async fn say(&self, ask: Ask) {
        let _ = self.0.send(ask).await;
    }
}

/// Where news come.
#[derive(Debug)]
pub struct NewsReader {
    news: mpsc::Receiver<News>,
    /// `None` once it was told, or can't come any more.
    detached: Option<oneshot::Receiver<Detached>>,
    /// What was handed out counts as acknowledged.
    handed: Option<watch::Sender<OutputOffsets>>,
    over: bool,
}

impl NewsReader {
    /// The next thing; `None` behind the verdict. Safe to cancel.
    ///
    /// # Errors
    /// When the caller is not attached any more.
    pub async fn next(&mut self) -> Option<Result<News, Detached>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<News, Detached>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(detached) = &mut self.detached
            && let Poll::Ready(told) = detached.poll_unpin(context)
        {
            self.detached = None;
            if let Ok(why) = told {
                self.over = true;
                return Poll::Ready(Some(Err(why)));
            }
        }
        let Some(news) = ready!(self.news.poll_recv(context)) else {
            self.over = true;
            return Poll::Ready(Some(Err(Detached::Orphaned)));
        };
        match &news {
            News::Output(chunk) => {
                if let Some(handed) = &self.handed {
                    let end = chunk.raw_offset + chunk.bytes.len() as u64;
                    handed.send_modify(|offsets| match chunk.stream {
                        Stream::Stdout => offsets.stdout = end,
                        Stream::Stderr => offsets.stderr = end,
                    });
                }
            }
            News::Verdict(_) => self.over = true,
            News::InputWritten(_) => {}
        }
        Poll::Ready(Some(Ok(news)))
    }
}

/// The owner's side.
#[derive(Debug)]
pub(super) struct Link {
    pub news: mpsc::Sender<News>,
    pub asks: mpsc::Receiver<Ask>,
    /// `None` where the caller acknowledges by itself.
    pub handed: Option<watch::Receiver<OutputOffsets>>,
    detach: oneshot::Sender<Detached>,
}

impl Link {
    pub(super) fn detach(self, why: Detached) {
        let _ = self.detach.send(why);
    }
}

/// Both sides; the caller has everything before `offsets`.
pub(super) fn attachment(
    exec_id: String,
    input_offset: u64,
    offsets: OutputOffsets,
    acknowledges: bool,
) -> (Link, Attachment) {
    let (told, news) = mpsc::channel(NEWS_QUEUE);
    let (said, asks) = mpsc::channel(ASKS_QUEUE);
    let (detach, detached) = oneshot::channel();
    let (handing, handed) = watch::channel(offsets);
    let (handing, handed) = if acknowledges { (None, None) } else { (Some(handing), Some(handed)) };
    let news = NewsReader { news, detached: Some(detached), handed: handing, over: false };
    let attachment = Attachment { exec_id, input_offset, asks: Asks(said), news };
    (Link { news: told, asks, handed, detach }, attachment)
}

/// Of an exec that has no owner, since all that is left of it is how it ended.
pub(super) fn ended(exec_id: String, verdict: Verdict) -> Attachment {
    let (link, attachment) = attachment(exec_id, 0, OutputOffsets::default(), true);
    let _ = link.news.try_send(News::Verdict(Box::new(verdict)));
    attachment
}

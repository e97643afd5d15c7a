//! Results of unpacking: they take long, and are kept, so that a host that lost its connection meanwhile may ask the same again
//! by the same id, and nothing is done twice.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use creel_proto::agent::{SourceUnpack, SourceUnpackResult};
use tokio::sync::watch;

/// How many are kept.
const KEPT_ANSWERS: usize = 16;

type Kept = watch::Receiver<Option<SourceUnpackResult>>;

#[derive(Debug)]
struct Asked {
    id: String,
    request: SourceUnpack,
    answer: Kept,
}

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Answers(Arc<Mutex<VecDeque<Asked>>>);

impl Answers {
    /// The answer to a request: that of `work` if it was not asked before. The work goes on also when nobody waits for it
    /// any more. `None` if it died.
    pub(super) fn answer<W>(
        &self,
        id: &str,
        request: &SourceUnpack,
        work: W,
    ) -> impl Future<Output = Option<SourceUnpackResult>> + Send + use<W>
    where
        W: Future<Output = SourceUnpackResult> + Send + 'static,
    {
        let mut kept = self.keep(id, request, work);
        async move { kept.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone()) }
    }

    fn keep(
        &self,
        id: &str,
        request: &SourceUnpack,
        work: impl Future<Output = SourceUnpackResult> + Send + 'static,
    ) -> Kept {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = answers.iter().find(|asked| asked.id == id && asked.request == *request) {
            return asked.answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        tokio::spawn(async move { sender.send_replace(Some(work.await)) });
        if answers.len() == KEPT_ANSWERS {
            answers.pop_front();
        }
        answers.push_back(Asked { id: id.to_owned(), request: request.clone(), answer: answer.clone() });
        answer
    }

    /// Who asked for them is gone.
    pub fn forget_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

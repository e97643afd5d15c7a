//! What a row is: one comparison, or one figure of ours alone.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::world::World;

/// Which way a figure is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Lower,
    Higher,
}

impl Better {
    /// Whether ours, as a multiple of the peer's, is as good as `goal`.
    pub fn met(self, ratio: f64, goal: f64) -> bool {
        match self {
            Self::Lower => ratio <= goal,
            Self::Higher => ratio >= goal,
        }
    }
}

/// What is said of a row before it is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct About {
    /// Of lower-case letters and `-`.
    pub name: &'static str,
    /// Of both sides' figures.
    pub unit: &'static str,
    pub better: Better,
    /// For ours / peer. `None`: no promise was made.
    pub goal: Option<f64>,
    /// In a few words.
    pub ours: &'static str,
    /// `None`: there is nothing to compare with.
    pub peer: Option<&'static str>,
    /// A sentence or two for the documentation.
    pub meaning: &'static str,
}

/// Why there is no figure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(String);

impl Failed {
    pub fn new(why: impl std::fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// For errors of libraries: what was tried, and the whole chain of what went wrong.
pub trait Trying<T> {
    /// # Errors
    /// The same, with words.
    fn trying(self, what: &str) -> Result<T, Failed>;
}

impl<T, E: std::error::Error> Trying<T> for Result<T, E> {
    fn trying(self, what: &str) -> Result<T, Failed> {
        self.map_err(|error| {
            let mut text = format!("failed to {what}: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.ends_with(&cause_text) {
                    text.push_str(&format!(": {cause_text}"));
                }
                source = cause.source();
            }
            Failed(text)
        })
    }
}

/// One comparison. The harness prepares it once, then measures both sides in turn.
#[async_trait]
pub trait Row: Send {
    fn about(&self) -> About;

    /// Starts what ours needs.
    async fn prepare(&mut self, world: &mut World) -> Result<(), Failed>;

    /// Starts what the peer needs. Where it fails the peer is missing: ours is measured all the same.
    async fn prepare_peer(&mut self, _world: &mut World) -> Result<(), Failed> {
        Ok(())
    }

    /// One run of ours, in the row's unit.
    async fn ours(&mut self) -> Result<f64, Failed>;

    /// One run of the peer.
    async fn peer(&mut self) -> Result<f64, Failed> {
        Err(Failed::new("this row has no peer"))
    }

    /// Ends what this row alone has started.
    async fn clean_up(&mut self) -> Result<(), Failed> {
        Ok(())
    }
}

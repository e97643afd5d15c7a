//! The workflows of this process, by whose they are: what the API's workflow level stands on.
//!
//! One task owns each workflow from [`Workflows::init`] until nothing of it is left: it alone drives the session, ends
//! the workflow when its time is over, and writes its record. Calls never own the work: they claim the next piece of it,
//! watch what comes of it, and may go away at any time.
//!
//! ```text
//! registry   who has which workflow (table: by key); bounds             request   a file and a trigger, made a plan
//! owner      the task                                                  slots     who may run now, who waits (pure core)
//! workflow   what a call may do with one                               progress  what may follow on what (pure)
//! view       what there is to say of one                               entry     what is known of one, orders for its task
//! ```

mod entry;
mod error;
mod key;
mod owner;
mod progress;
mod registry;
mod request;
mod slots;
mod table;
mod view;
mod workflow;

pub use error::{InitError, Refusal};
pub use key::{Asker, Key, Name};
pub use progress::{State, StepProgress};
pub use registry::{Bounds, Found, Settings, Workflows};
pub use request::{Digest, Fault, NewWorkflow};
pub use slots::{Place, SlotCounts};
pub use view::View;
pub use workflow::{SettingUp, SetupSaid, SlotSaid, WaitingForSlot, Workflow};

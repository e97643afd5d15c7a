//! creel.v1: the control API, gRPC over a unix socket.
//!
//! ```text
//! server      listener, bounds, health           client   what `creel` asks of a daemon
//! connection  who is at the other end            error    a status, as the caller sees it
//! gate        what calls take of memory          places   how many of something, of whom (and turns: who waits)
//! role        who may do what (pure)
//! service     the calls of creel.v1.Machines     convert  messages <-> the library's types
//! request_id  what each call is called in logs   deadline  a caller's own, by its name
//! status      the library's errors as statuses   remote    a daemon's machines as a `Runtime`
//! ```

mod client;
mod connection;
mod convert;
mod deadline;
mod error;
mod gate;
mod measured;
mod places;
mod remote;
mod request_id;
mod role;
mod server;
mod service;
mod status;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod turns;

pub use client::{Client, Creating, NewMachine, Progress, SOURCE_CHUNK_BYTES};
pub use client::{ConsoleStream, EventStream, HostInfo, ListedImage, StatsStream};
pub use client::{ExecReceiver, ExecSender, Executing, Holding, NewExec, Said};
pub use convert::Malformed;
pub use error::{ApiError, ConnectError};
pub use remote::RemoteRuntime;
pub use request_id::REQUEST_ID;
pub use role::{GroupsError, OPERATOR_GROUP, Role, RolePolicy, SPINDLE_GROUP};
pub use server::{SERVICE_NAME, Server, WORKFLOWS_SERVICE_NAME};
pub use service::MAX_SOURCE_BYTES;

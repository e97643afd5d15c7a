//! Machines that do not end when they are destroyed.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::runtime::{
    ExecStreams, Machine, MachineFacts, MachineUsage, Mode, Runtime, RuntimeInfo, Shell, ShellError,
    ShellRequest, SignalError,
};

/// Its machines' processes end by this token alone.
#[derive(Debug, Clone, Default)]
struct Stubborn {
    gone: CancellationToken,
    /// What destroying one says until then: that it failed, or nothing of it.
    admits: bool,
    id: Option<MachineId>,
}

#[async_trait]
impl Runtime for Stubborn {
    async fn info(&self) -> RuntimeInfo {
        RuntimeInfo { name: "stubborn", mode: Mode::Exec, source_disk: false, usable: Ok(()) }
    }

    /// Takes until the cancel, and does not heed it.
    async fn setup(
        &self,
        request: SetupRequest,
        _events: SetupEvents,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Machine>, SetupError> {
        if request.workflow_id == "slow" {
            cancel.cancelled().await;
        }
        Ok(Box::new(Self { id: Some(request.id), ..self.clone() }))
    }
}

#[async_trait]
impl Machine for Stubborn {
    fn id(&self) -> &MachineId {
        self.id.as_ref().unwrap()
    }

    fn facts(&self) -> MachineFacts {
        MachineFacts::default()
    }

    fn usage(&self) -> Option<MachineUsage> {
        None
    }

    async fn ended(&self) -> Verdict {
        self.gone.cancelled().await;
        Verdict::of(Outcome::Cancelled)
    }

    async fn exec(
        &self,
        _request: ExecRequest,
        _streams: ExecStreams,
        _cancel: CancellationToken,
    ) -> Verdict {
        self.ended().await
    }

    async fn signal(&self, _exec_id: &str, _signal: i32) -> Result<(), SignalError> {
        Err(SignalError::Ended)
    }

    async fn shell(&self, _request: ShellRequest) -> Result<Shell, ShellError> {
        Err(ShellError::Ended)
    }

    async fn destroy(&self, _mode: DestroyMode) -> Result<(), String> {
        if self.admits && !self.gone.is_cancelled() { Err("it did not end".into()) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_does_not_end_is_listed_and_counted_until_it_has() {
    for admits in [true, false] {
        let runtime = Stubborn { admits, ..Stubborn::default() };
        let machines = Machines::new(Arc::new(runtime.clone()), 1);
        let id = id();
        let create = |id: &MachineId| creation(id, DETACHED);
        machines.create(create(&id), SetupEvents::ignored(), CancellationToken::new()).await.unwrap();
        for _ in 0..2 {
            let error = machines.destroy(&id, DestroyMode::Kill).await.unwrap_err();
            assert!(matches!(error, DestroyError::NotEnded { .. }), "{error}");
        }
        assert_eq!(machines.list(false)[0].state, State::Ending);
        assert_eq!(*machines.counts().borrow(), Counts { ending: 1, ..Counts::default() });
        let another = machines.create(create(&super::id()), SetupEvents::ignored(), CancellationToken::new());
        assert!(matches!(another.await, Err(CreateError::Full { .. })));
        assert_eq!(machines.end_all(Duration::from_secs(10)).await, std::slice::from_ref(&id));
        runtime.gone.cancel();
        let ended = machines.ended(&id).await.unwrap();
        assert_eq!((ended.state, outcome(&ended)), (State::Ended, Some(&Outcome::Cancelled)));
        assert_eq!(machines.destroy(&id, DestroyMode::Kill).await, Ok(ended), "all is freed");
        assert_eq!(machines.counts().borrow().living(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_cancelled_too_late_is_listed_too() {
    let runtime = Stubborn { admits: true, ..Stubborn::default() };
    let machines = Machines::new(Arc::new(runtime.clone()), 1);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let mut creation = creation(&id(), DETACHED);
    creation.request.workflow_id = "slow".into();
    let error = machines.create(creation, SetupEvents::ignored(), cancel).await.unwrap_err();
    assert!(matches!(error, CreateError::Setup(_)), "{error}");
    assert_eq!(*machines.counts().borrow(), Counts { ending: 1, ..Counts::default() });
    runtime.gone.cancel();
    machines.counts().wait_for(|counts| counts.living() == 0).await.unwrap();
}

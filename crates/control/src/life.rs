//! How the controllers of a process begin and end.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Reconcile, Runner};

/// How controllers end.
#[derive(Clone, Debug, Default)]
pub struct Life {
    stop: CancellationToken,
    /// At once, in the middle of what is under way.
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Life {
    /// Returns at once, with a life in which controllers are being launched.
    pub fn begin<F: Future<Output = ()> + Send + 'static>(launch: impl FnOnce(Self) -> F) -> Self {
        let life = Self::default();
        life.task(launch(life.clone()));
        life
    }

    /// The same, as soon as it is known that it is to work at all.
    pub fn spawn_if<R: Reconcile>(
        &self,
        works: impl Future<Output = bool> + Send + 'static,
        runner: Runner,
        reconciler: R,
    ) {
        let stop = self.stop.clone();
        let running = async move {
            if stop.run_until_cancelled(works).await == Some(true) {
                runner.run(Arc::new(reconciler), stop).await;
            }
        };
        self.tasks.spawn(self.abort.clone().run_until_cancelled_owned(running));
    }

    /// Runs until the controllers end.
    pub fn task(&self, running: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let _ = stop.run_until_cancelled(running).await;
        });
    }

    pub fn spawn<R: Reconcile>(&self, runner: Runner, reconciler: R) {
        let running = runner.run(Arc::new(reconciler), self.stop.clone());
        self.tasks.spawn(self.abort.clone().run_until_cancelled_owned(running));
    }

    /// Is cancelled when the controllers are to end.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Lets the reconciles that are under way finish, and returns.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Cuts off the reconciles that are under way, wherever they are, as the end of the process would.
    pub async fn abort(self) {
        self.abort.cancel();
        self.shutdown().await;
    }
}

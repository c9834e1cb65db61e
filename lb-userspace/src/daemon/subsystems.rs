//! What the control task drives: the data plane, the monitors and the static VIPs, behind a trait so that the task's rules
//! are tested without a kernel.

use std::{future::Future, sync::Arc, time::Duration};

use super::{histories::Histories, names::Names, sharing::Sharing, vips::Vips};
use crate::{
    admin,
    alerts::Alerts,
    config::Config,
    control::{
        plan::Plan,
        proxy::ProxyPlan,
        query::QueryError,
        state::{Check, VipPlan},
        view::{VipsView, WorkerView},
    },
    dataplane::{collect::Collector, names::SharedNames, task},
    health::{Monitors, Settings, Target},
    proxy::supervisor::{Estate, Supervisor, WorkerState},
};

/// The outside, as the control task orders it about.
pub(super) trait Subsystems {
    /// Makes the data path do what the plan says. On error it does what it did before.
    fn enact(&self, plan: Arc<Plan>) -> impl Future<Output = Result<(), String>>;
    /// Makes the L7 proxy do what the plan says. On error it does what it did before.
    fn proxy(&self, plan: Arc<ProxyPlan>) -> impl Future<Output = Result<(), String>>;
    /// Opens the access logs anew.
    fn reopen_logs(&self);
    /// Tells the L7 proxy to take a node back that its passive monitoring took out.
    fn bring_back(&self, pool: &str, node: &str);
    /// Gives VIP groups to machines that can take them, because this program is replaced, or takes part again; those that stay.
    fn make_way(&self, goes: bool) -> impl Future<Output = Vec<String>>;
    /// What the program that replaces this one goes on with.
    fn leave(&self) -> impl Future<Output = Result<Estate, String>>;
    /// The worker of the L7 proxy; `None`: none is needed.
    fn worker(&self) -> Option<WorkerView>;
    /// Why it is not there, or why the last one ended.
    fn worker_problem(&self) -> Option<String>;
    /// Replaces the DNS names that are looked up.
    fn resolve(&self, names: &[&str]);
    /// Tells events as this configuration says.
    fn alert(&self, config: &Config);
    /// Replaces the health checks.
    fn check(&self, checks: &[Check]);
    /// Replaces the VIPs that are raised; done when the kernel was asked for all of them.
    fn raise(&self, config: &Config, vips: &VipPlan) -> impl Future<Output = ()>;
    /// VIP groups and machines, as they stand.
    fn vips(&self, config: &Config, plan: &VipPlan) -> VipsView;
    /// Moves a VIP group to a machine, or to the best other one.
    fn move_vip(&self, group: &str, to: Option<&str>) -> impl Future<Output = Result<(), QueryError>>;
    /// Leaves all VIP groups to the other machines.
    fn resign(&self) -> impl Future<Output = ()>;
    /// A new configuration is in force, and a second has passed since the last call at most.
    fn look_after(&self, config: &Config);
    /// What an operator should know of them.
    fn problems(&self) -> Vec<String>;
    /// Lets the L7 proxy end what it does, for so long at most.
    fn stop_proxy(&self, longest: Duration) -> impl Future<Output = ()>;
    /// Takes forwarding and VIPs down; whether all of it worked.
    fn withdraw(self) -> impl Future<Output = bool>;
}

/// The real ones.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) data_plane: task::Handle,
    pub(super) names: SharedNames,
    pub(super) collector: Collector,
    pub(super) monitors: Monitors,
    pub(super) vips: Vips,
    pub(super) sharing: Sharing,
    pub(super) proxy: Supervisor,
    pub(super) resolver: Names,
    pub(super) alerts: Alerts,
    pub(super) access: Arc<admin::Access>,
    pub(super) histories: Histories,
}

impl Subsystems for Real {
    async fn enact(&self, plan: Arc<Plan>) -> Result<(), String> {
        let applied = self.data_plane.apply(plan).await.map_err(|error| error.to_string())?;
        tracing::debug!(?applied, "the data path follows");
        Ok(())
    }

    async fn proxy(&self, plan: Arc<ProxyPlan>) -> Result<(), String> {
        self.proxy.apply(plan).await
    }

    fn reopen_logs(&self) {
        self.proxy.reopen_logs();
    }

    fn bring_back(&self, pool: &str, node: &str) {
        self.proxy.bring_back(pool, node);
    }

    async fn make_way(&self, goes: bool) -> Vec<String> {
        if goes {
            self.sharing.flush().await;
        }
        self.vips.make_way(goes).await
    }

    async fn leave(&self) -> Result<Estate, String> {
        self.histories.save();
        self.proxy.leave().await.map_err(|error| error.to_string())
    }

    fn worker(&self) -> Option<WorkerView> {
        let WorkerState { pid, ready, failures, connections, sessions, problem } = self.proxy.state();
        let is_needed = pid.is_some() || problem.is_some();
        let (connections, sessions) = (connections as u64, sessions as u64);
        is_needed.then_some(WorkerView { pid, ready, connections, failures, sessions })
    }

    fn worker_problem(&self) -> Option<String> {
        self.proxy.state().problem
    }

    fn resolve(&self, names: &[&str]) {
        self.resolver.set(names);
    }

    async fn stop_proxy(&self, longest: Duration) {
        self.proxy.stop(longest).await;
    }

    fn alert(&self, config: &Config) {
        self.alerts.set(config);
    }

    fn check(&self, checks: &[Check]) {
        self.monitors.set(checks.iter().map(target).collect());
    }

    async fn raise(&self, config: &Config, vips: &VipPlan) {
        if vips.in_maintenance && !self.vips.is_in_maintenance() {
            self.sharing.flush().await;
        }
        self.vips.set(config, vips).await;
    }

    fn look_after(&self, config: &Config) {
        self.vips.configure(config);
        self.access.configure(config);
        self.sharing.configure(config, &self.vips);
        let serves = config.proxy.virtual_servers.is_empty() || self.proxy.state().ready;
        let problem = || self.proxy.state().problem.unwrap_or_else(|| "the L7 proxy has no worker".to_owned());
        self.vips.note_worker((!serves).then(problem));
    }

    fn vips(&self, config: &Config, plan: &VipPlan) -> VipsView {
        let mut view = self.vips.view(config, plan);
        if let Some(cluster) = &mut view.cluster {
            cluster.sharing = self.sharing.view();
        }
        view
    }

    async fn move_vip(&self, group: &str, to: Option<&str>) -> Result<(), QueryError> {
        self.sharing.flush().await;
        self.vips.move_group(group, to).await
    }

    async fn resign(&self) {
        self.sharing.flush().await;
        self.vips.leave().await;
    }

    fn problems(&self) -> Vec<String> {
        // What it says of interfaces, the control state says as well.
        let of_data_plane = |warning: &&String| !warning.starts_with("interface ");
        let mut problems: Vec<String> = self.names.snapshot().warnings.iter().filter(of_data_plane).cloned().collect();
        problems.extend(self.vips.problems());
        problems.extend(self.sharing.problems());
        problems.extend(self.resolver.problems());
        problems.extend(self.access.problems());
        problems.extend(self.proxy.state().problem.map(|problem| format!("L7 proxy: {problem}")));
        problems
    }

    async fn withdraw(self) -> bool {
        drop(self.collector);
        drop(self.sharing);
        // The addresses first: the neighbours turn elsewhere before packets are not forwarded any more.
        let vips = self.vips.withdraw().await;
        let data_path = self.data_plane.withdraw().await;
        if let Err(error) = &vips {
            tracing::error!(%error, "VIPs could not be taken down");
        }
        if let Err(error) = &data_path {
            tracing::error!(%error, "the data path could not be taken down");
        }
        vips.is_ok() && data_path.is_ok()
    }
}

fn target(check: &Check) -> Target {
    let &Check { address, delay, timeout, failures, successes, .. } = check;
    Target {
        pool: check.pool.clone(),
        node: check.node.clone(),
        address,
        monitor: check.monitor.clone(),
        settings: Settings { kind: check.kind.clone(), delay, timeout, failures, successes },
    }
}

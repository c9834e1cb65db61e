//! What the control task answers: questions of the admin API, and what became of orders.

use std::process;

use super::{Running, now, restart};
use crate::{
    control::{
        query::{Counters, Everything, Nodes, Order},
        state::Event,
        view::Status,
    },
    daemon::{handle::Request, subsystems::Subsystems},
};

impl<S: Subsystems> Running<S> {
    pub(super) async fn answer(&mut self, request: Request) {
        // An asker that went away wants no answer.
        match request {
            Request::Ready(answer) => drop(answer.send(self.is_ready())),
            Request::Status(counters, answer) => drop(answer.send(self.status(&counters))),
            Request::VirtualServers(counters, nodes, answer) => {
                drop(answer.send(self.state.virtual_servers(&counters, nodes)));
            }
            Request::VirtualServer(name, known, answer) => drop(answer.send(self.state.virtual_server(&name, &known))),
            Request::Pool(name, counters, answer) => drop(answer.send(self.state.pool(&name, &counters))),
            Request::Pools(counters, nodes, answer) => drop(answer.send(self.state.pools(&counters, nodes))),
            Request::Everything(counters, answer) => drop(answer.send(self.everything(counters))),
            Request::Certificates(answer) => drop(answer.send(self.certificates.views())),
            Request::Order(Order::Upgrade, answer) => {
                self.upgrade.begin(&self.parts.seat, &self.parts.config_path, Some(answer));
            }
            Request::Vips(answer) => drop(answer.send(self.vips())),
            Request::Order(Order::MoveVip { group, to }, answer) => drop(answer.send(self.move_vip(group, to).await)),
            Request::Configure(read, answer) => drop(answer.send(self.configure(read).await)),
            Request::Order(order, answer) => {
                let outcome = self.change(Event::Order(order)).await;
                // What an operator was told of survives a crash.
                self.parts.keeper.then(move || drop(answer.send(outcome)));
            }
        }
    }

    /// Whether data path and L7 proxy do what the configuration says.
    fn is_ready(&self) -> bool {
        let proxies = !self.state.config().proxy.virtual_servers.is_empty();
        self.behind.is_none() && (!proxies || self.parts.subsystems.worker().is_some_and(|worker| worker.ready))
    }

    pub(super) fn status(&self, counters: &Counters) -> Status {
        let mut status = self.state.status(counters);
        status.version = env!("CARGO_PKG_VERSION").to_owned();
        status.pid = process::id();
        status.uptime_s = self.started.elapsed().as_secs();
        status.config_file = self.parts.config_path.display().to_string();
        status.data_path = self.origin().to_owned();
        status.upgrades = self.parts.seat.upgrades;
        status.upgrade_error = self.upgrade.failure().map(str::to_owned);
        status.worker = self.parts.subsystems.worker();
        status.warnings.extend(self.certificates.warnings(now()));
        if let Some(why) = &self.behind {
            status.warnings.insert(0, format!("the data path does not do what it should, and is tried again: {why}"));
        }
        status.warnings.extend(self.parts.subsystems.problems());
        status.warnings.extend(restart::needed(&self.first, self.state.config()));
        status.warnings.extend(self.state.config().warnings());
        if let Some(why) = &self.unsaved {
            status.warnings.push(format!("what was set at run time would not survive a restart: {why}"));
        }
        status
    }

    fn everything(&self, counters: Counters) -> Everything {
        Everything {
            status: self.status(&counters),
            virtual_servers: self.state.virtual_servers(&counters, Nodes::Counted),
            pools: self.state.pools(&counters, Nodes::Shown),
            proxy: counters.proxy,
        }
    }

    /// How lbd found the data path.
    pub(super) fn origin(&self) -> &'static str {
        if self.parts.adopted { "adopted" } else { "created" }
    }
}

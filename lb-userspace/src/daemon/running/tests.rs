//! The control task's rules, with the subsystems played by a fake that can refuse.

use std::{
    cell::{Cell, RefCell},
    fs,
    path::Path,
};

use super::{
    super::{keeper::Known, resume},
    *,
};
use crate::{
    control::{
        plan::{Admission, Forwarding},
        query::Counters,
        view::{NodeState, VipsView, WorkerView},
    },
    proxy::supervisor::Estate,
};

const CONFIG: &str = r#"
version = 1
[interface.eth0]
[vip.web]
addresses = ["192.0.2.10"]
interface = "eth0"
raise = true
[virtual_server.web]
vips = ["web"]
protocol = "tcp"
ports = [80]
pool = "web"
[pool.web]
forwarding = "nat"
monitors = ["tcp"]
[pool.web.node.n1]
address = "10.0.0.11:80"
[pool.web.node.n2]
address = "10.0.0.12:80"
[monitor.tcp]
type = "tcp"
"#;

/// Remembers what it was told; refuses the next plans as often as it is told to.
#[derive(Debug, Default)]
struct Fake {
    refusals: Cell<u32>,
    plans: RefCell<Vec<Arc<Plan>>>,
    proxied: RefCell<Vec<Arc<ProxyPlan>>>,
    checks: Cell<usize>,
    raised: RefCell<VipPlan>,
    moved: RefCell<Vec<(String, Option<String>)>>,
    brought_back: RefCell<Vec<String>>,
}

impl Subsystems for Fake {
    async fn enact(&self, plan: Arc<Plan>) -> Result<(), String> {
        if let Some(left) = self.refusals.get().checked_sub(1) {
            self.refusals.set(left);
            return Err("the kernel says no".to_owned());
        }
        self.plans.borrow_mut().push(plan);
        Ok(())
    }

    async fn proxy(&self, plan: Arc<ProxyPlan>) -> Result<(), String> {
        self.proxied.borrow_mut().push(plan);
        Ok(())
    }

    fn reopen_logs(&self) {}

    fn bring_back(&self, pool: &str, node: &str) {
        self.brought_back.borrow_mut().push(format!("{pool}/{node}"));
    }

    async fn make_way(&self, _goes: bool) -> Vec<String> {
        Vec::new()
    }

    async fn leave(&self) -> Result<Estate, String> {
        Err("nothing to leave".to_owned())
    }

    fn worker(&self) -> Option<WorkerView> {
        None
    }

    fn worker_problem(&self) -> Option<String> {
        None
    }

    fn resolve(&self, _names: &[&str]) {}

    async fn stop_proxy(&self, _longest: Duration) {}

    fn alert(&self, _config: &Config) {}

    fn check(&self, checks: &[Check]) {
        self.checks.set(checks.len());
    }

    async fn raise(&self, _config: &Config, vips: &VipPlan) {
        *self.raised.borrow_mut() = vips.clone();
    }

    fn look_after(&self, _config: &Config) {}

    fn vips(&self, _config: &Config, _plan: &VipPlan) -> VipsView {
        VipsView::default()
    }

    async fn move_vip(&self, group: &str, to: Option<&str>) -> Result<(), QueryError> {
        self.moved.borrow_mut().push((group.to_owned(), to.map(str::to_owned)));
        Ok(())
    }

    async fn resign(&self) {}

    fn problems(&self) -> Vec<String> {
        vec!["a VIP is not up".to_owned()]
    }

    async fn withdraw(self) -> bool {
        true
    }
}

/// lbd as started with the configuration in `dir`.
async fn start(dir: &Path) -> Running<Fake> {
    let config_path = dir.join("lb.toml");
    let state_dir = dir.join("state");
    let (known, keeper) = Known::load(&state_dir);
    let (state, keeper) = (resume(Config::load(&config_path).unwrap(), &known), keeper.start().unwrap());
    let plan = Arc::new(state.plan());
    let subsystems = Fake::default();
    let (secret, seat) = (Secret::default(), Seat::for_tests(dir));
    let ((teller, _), drains) = (Teller::new(), watch::Sender::new(BTreeSet::new()));
    let ((reloads, _), adopted) = (std::sync::mpsc::channel(), true);
    let parts = Parts { config_path, subsystems, adopted, keeper, secret, seat, reloads, teller, drains };
    let mut running = Running::new(state, plan, parts);
    running.begin().await;
    running
}

fn directory(config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("lb.toml"), config).unwrap();
    dir
}

fn drain(node: &str) -> Event {
    Event::Order(Order::SetNodeState { pool: None, node: node.to_owned(), state: NodeState::Draining })
}

fn down(node: &str) -> Report {
    let (pool, monitor, reason) = ("web".to_owned(), "tcp".to_owned(), Some("connection refused".to_owned()));
    Report { pool, node: node.to_owned(), monitor, health: Health::Down, reason }
}

fn admissions(plan: &Plan) -> Vec<Admission> {
    plan.virtual_servers["web"].nodes.iter().map(|node| node.admission).collect()
}

impl Running<Fake> {
    async fn reload(&mut self) -> Result<(), QueryError> {
        let read = Config::load(&self.parts.config_path);
        self.configure(read.map(Box::new).map_err(|errors| QueryError::ConfigInvalid(errors.to_string()))).await
    }

    /// As after a crash a while later.
    async fn restarted(&mut self, dir: &Path) -> Running<Fake> {
        self.remember();
        assert!(self.parts.keeper.flush(Duration::from_secs(20)));
        start(dir).await
    }

    fn newest_plan(&self) -> Arc<Plan> {
        self.parts.subsystems.plans.borrow().last().cloned().unwrap()
    }
}

#[tokio::test]
async fn subsystems_follow_an_order_and_what_changes_nothing_is_not_sent() {
    let dir = directory(CONFIG);
    let mut running = start(dir.path()).await;
    assert_eq!((running.parts.subsystems.checks.get(), running.parts.subsystems.raised.borrow().fixed.len()), (2, 1));
    running.change(drain("n1")).await.unwrap();
    assert_eq!(admissions(&running.newest_plan()), [Admission::Tracked, Admission::All]);
    running.change(drain("n1")).await.unwrap();
    assert_eq!(running.parts.subsystems.plans.borrow().len(), 1);
}

#[tokio::test]
async fn an_order_that_the_data_path_refuses_is_undone() {
    let dir = directory(CONFIG);
    let mut running = start(dir.path()).await;
    let before = running.state.clone();
    running.parts.subsystems.refusals.set(1);
    let error = running.change(drain("n1")).await.unwrap_err();
    assert_eq!(error, QueryError::Failed("the kernel says no; nothing was changed".to_owned()));
    assert_eq!(running.state, before);
    assert_eq!(admissions(&running.newest_plan()), [Admission::All, Admission::All], "the old plan is written again");

    running.parts.subsystems.refusals.set(2);
    running.change(drain("n1")).await.unwrap_err();
    assert!(running.status(&Counters::default()).warnings[0].contains("the kernel says no"));
    running.tick().await;
    assert!(!running.status(&Counters::default()).warnings[0].contains("the kernel says no"), "tried again");
}

#[tokio::test]
async fn an_invalid_configuration_changes_nothing_until_it_is_mended() {
    let dir = directory(CONFIG);
    let file = dir.path().join("lb.toml");
    let mut running = start(dir.path()).await;
    fs::write(&file, CONFIG.replace("pool = \"web\"", "pool = \"wbe\"")).unwrap();
    let QueryError::ConfigInvalid(why) = running.reload().await.unwrap_err() else { panic!("another kind") };
    assert!(why.contains("wbe") && why.contains("lb.toml:"), "{why}");
    let status = running.status(&Counters::default());
    assert_eq!((status.config_generation, status.config_error), (1, Some(why)));
    assert!(running.parts.subsystems.plans.borrow().is_empty());

    fs::write(&file, CONFIG.replace("[pool.web.node.n2]\naddress = \"10.0.0.12:80\"", "")).unwrap();
    running.reload().await.unwrap();
    let status = running.status(&Counters::default());
    assert_eq!((status.config_generation, status.config_error), (2, None));
    assert_eq!(admissions(&running.newest_plan()), [Admission::All]);
    assert_eq!(running.parts.subsystems.checks.get(), 1);
}

#[tokio::test]
async fn a_reload_that_the_data_path_refuses_keeps_the_configuration_and_says_why() {
    let dir = directory(CONFIG);
    let mut running = start(dir.path()).await;
    fs::write(dir.path().join("lb.toml"), CONFIG.replace("[80]", "[81]")).unwrap();
    running.parts.subsystems.refusals.set(1);
    assert!(matches!(running.reload().await, Err(QueryError::Failed(_))));
    let status = running.status(&Counters::default());
    assert_eq!(status.config_generation, 1);
    assert!(status.config_error.is_some_and(|why| why.contains("the kernel says no")));
    assert_eq!(running.newest_plan().virtual_servers["web"].ports, [(80, 80)]);
}

#[tokio::test]
async fn a_dead_node_gets_nothing_even_after_a_restart() {
    let dir = directory(CONFIG);
    let mut running = start(dir.path()).await;
    running.parts.subsystems.refusals.set(1);
    running.hear([down("n2")]).await;
    running.tick().await;
    assert_eq!(admissions(&running.newest_plan()), [Admission::All, Admission::Nothing], "tried again");

    let mut restarted = running.restarted(dir.path()).await;
    assert_eq!(admissions(&restarted.applied), [Admission::All, Admission::Nothing]);
    restarted.hear([Report { health: Health::Up, reason: None, ..down("n2") }]).await;
    assert_eq!(admissions(&restarted.newest_plan()), [Admission::All, Admission::All]);
    assert_eq!(admissions(&restarted.restarted(dir.path()).await.applied), [Admission::All, Admission::All]);
}

#[tokio::test]
async fn what_is_set_at_run_time_survives_a_restart() {
    let dir = directory(CONFIG);
    let mut running = start(dir.path()).await;
    running.change(drain("n1")).await.unwrap();
    let order = Order::SetForwarding { pool: "web".to_owned(), forwarding: Forwarding::Dsr };
    running.change(Event::Order(order)).await.unwrap();
    let restarted = running.restarted(dir.path()).await;
    assert_eq!(restarted.applied, running.applied);
    assert_eq!(restarted.applied.virtual_servers["web"].forwarding, Forwarding::Dsr);
}

#[tokio::test]
async fn the_status_says_what_needs_a_restart_and_what_the_subsystems_say() {
    let dir = directory(CONFIG);
    let mut running = start(dir.path()).await;
    fs::write(dir.path().join("lb.toml"), format!("{CONFIG}\n[daemon]\nsocket = \"/run/lb/other.sock\"\n")).unwrap();
    running.reload().await.unwrap();
    let status = running.status(&Counters::default());
    let says = |words: &str| status.warnings.iter().any(|warning| warning.contains(words));
    assert!(says("daemon.socket was changed") && says("a VIP is not up"), "{:?}", status.warnings);
    assert_eq!((status.data_path.as_str(), status.pid), ("adopted", std::process::id()));
}

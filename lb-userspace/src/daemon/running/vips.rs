//! VIPs, as the control task has them raised, announced and moved.

use super::Running;
use crate::{
    control::{
        query::{Order, QueryError},
        state::Event,
        view::VipsView,
    },
    daemon::subsystems::Subsystems,
};

impl<S: Subsystems> Running<S> {
    pub(super) fn vips(&self) -> VipsView {
        self.parts.subsystems.vips(self.state.config(), &self.state.vips())
    }

    pub(super) async fn move_vip(&mut self, group: String, to: Option<String>) -> Result<(), QueryError> {
        self.apply(Event::Order(Order::MoveVip { group: group.clone(), to: to.clone() }))?;
        self.parts.subsystems.move_vip(&group, to.as_deref()).await
    }

    /// Raises and announces the VIPs that the state says.
    pub(super) async fn raise(&mut self) {
        let raised = self.state.vips();
        if self.raised.as_ref() != Some(&raised) {
            self.parts.subsystems.raise(self.state.config(), &raised).await;
            self.raised = Some(raised);
        }
    }
}

//! Control: the one writer of state. What the configuration says, what operators set at run time and what the monitors
//! found go in as events; a [`plan::Plan`] for the data path comes out. Pure: no socket, clock or lock in here.

pub mod access;
pub mod api;
pub mod backup;
pub mod capture;
pub mod event;
pub mod history;
pub mod plan;
pub mod probe;
pub mod proxy;
pub mod query;
pub mod redact;
pub mod revision;
pub mod shared;
pub mod state;
pub mod view;

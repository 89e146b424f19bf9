//! What pages are made of.

mod badge;
mod budget_bar;
mod control;
pub(super) mod live;
mod scale;
mod stacked;

pub(super) use badge::{Badge, Meaning};
pub(super) use budget_bar::{BudgetBar, Size};
pub(super) use control::{Control, Kind};
pub(super) use stacked::{Column, SERIES, Stacked};

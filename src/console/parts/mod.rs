//! What pages are made of.

mod badge;
mod budget_bar;
mod burn_down;
mod control;
pub(super) mod live;
mod scale;
mod share;
mod stacked;

pub(super) use badge::{Badge, Meaning};
pub(super) use budget_bar::{BudgetBar, Size};
pub(super) use burn_down::{BurnDown, Mark, Stretch};
pub(super) use control::{Control, Kind};
pub(super) use share::share_bar;
pub(super) use stacked::{Column, SERIES, Stacked};
